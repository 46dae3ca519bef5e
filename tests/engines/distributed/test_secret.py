"""Where no secret is given, only processes of one user on one host have one in common."""

import os
from pathlib import Path

import pytest

from stalegrid.engines.distributed.secret import SECRET, SECRET_FILE, common_secret
from stalegrid.errors import ConfigError
from tests.engines.distributed.forked import together

NOBODY = 65534
LONG = "a long random text"


@pytest.fixture(autouse=True)
def _none_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SECRET, SECRET_FILE):
        monkeypatch.delenv(name, raising=False)


def test_processes_of_one_user_on_one_host_need_none(tmp_path: Path) -> None:
    one, other = together(tmp_path, 2, lambda rank: common_secret(10.0).hex())
    assert one == other
    assert len(bytes.fromhex(one)) == 32


def test_one_that_is_given_to_all_is_taken_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{LONG}\n")

    def act(rank: int) -> str:
        os.environ.update({SECRET: LONG} if rank else {SECRET_FILE: str(tmp_path / "secret")})
        return common_secret(10.0).decode()

    assert together(tmp_path, 2, act) == [LONG, LONG]


def test_who_was_given_none_is_named(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        if rank != 1:
            os.environ[SECRET] = LONG
        return common_secret(10.0).decode()

    told = "ConfigError: processes lack the secret of this run (processes: [1]); set STALEGRID_SECRET for all"
    assert together(tmp_path, 3, act) == [told] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_named_and_the_remedy(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        if rank == 1:
            os.seteuid(NOBODY)
        try:
            return common_secret(10.0).hex()
        finally:
            os.seteuid(0)

    for said in together(tmp_path, 2, act):
        assert said.startswith("ConfigError: processes of other hosts, or users, have to prove")
        assert "(processes: [1]); set STALEGRID_SECRET to the same long random text for all" in said


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (SECRET, "short", r"a secret that short can be guessed \(bytes: 5, at least: 16\)"),
        (SECRET_FILE, "/no/such/file", r"cannot be read \(STALEGRID_SECRET_FILE: /no/such/file\): No such file"),
    ],
)
def test_a_secret_that_is_none_is_refused(name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=told):
        common_secret(10.0)
