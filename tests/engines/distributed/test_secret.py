"""Where no secret is given, only processes of one user on one host have one in common."""

import os
import tempfile
from pathlib import Path

import pytest

from stalegrid.engines.distributed import talk
from stalegrid.engines.distributed.private import make_secret, private_folder
from stalegrid.engines.distributed.secret import SECRET, SECRET_FILE, common_secret
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
        assert said.startswith("ConfigError: processes of other hosts or users, or with another TMPDIR, have to")
        assert "(processes: [1]); set STALEGRID_SECRET to the same long random text for all" in said


@pytest.mark.parametrize(
    ("named", "read"),
    [("stalegrid-x", "1"), ("", "0"), ("..", "0"), ("{outside}", "0"), ("other", "0"), ("stalegrid-x/../other", "0")],
)
def test_the_first_process_can_name_nothing_but_a_private_folder(
    named: str, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place := tmp_path / "tmp").mkdir()
    for folder in (tmp_path, place, place / "other", place / "stalegrid-x"):
        folder.mkdir(0o700, exist_ok=True)
        make_secret(folder)
    with private_folder() as outside:
        make_secret(outside)
        monkeypatch.setattr(tempfile, "tempdir", str(place))

        def act(rank: int) -> str:
            if rank:
                return common_secret(10.0).hex()
            talk.gather(lambda: b"0", 10.0)
            talk.spread(lambda: named.format(outside=outside).encode(), 10.0)
            return talk.gather(lambda: b"1", 10.0)[1].decode()

        assert together(tmp_path, 2, act)[0] == read


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({SECRET: "short"}, "a secret that short can be guessed (bytes: 5, at least: 16); make one with"),
        ({SECRET_FILE: "/no/file"}, "the file with the secret cannot be read (STALEGRID_SECRET_FILE: /no/file): No"),
        (
            {SECRET: LONG, SECRET_FILE: "/no/file"},
            "two secrets are given (STALEGRID_SECRET_FILE: /no/file, and STALEGRID_SECRET); unset one",
        ),
    ],
    ids=["short", "missing", "two"],
)
def test_a_secret_that_is_none_is_refused_in_all_processes(given: dict[str, str], told: str, tmp_path: Path) -> None:
    def act(rank: int) -> str:
        os.environ.update(given if rank else {SECRET: LONG})
        return common_secret(10.0).decode()

    for said in together(tmp_path, 2, act):
        assert said.startswith(f"ConfigError: {told}")


def test_a_secret_may_be_bytes_that_are_no_text(tmp_path: Path) -> None:
    secret = b"\xff" * 16

    def act(rank: int) -> str:
        os.environb[SECRET.encode()] = secret
        return common_secret(10.0).hex()

    assert together(tmp_path, 2, act) == [secret.hex()] * 2
