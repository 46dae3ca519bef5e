"""Files of a run are for its user alone, and whatever is not is refused."""

import os
import tempfile
from pathlib import Path

import pytest

from stalegrid.engines.distributed.private import make_secret, private_folder, read_secret
from stalegrid.errors import ConfigError

NOBODY = 65534


def test_a_secret_is_read_as_it_was_drawn_and_no_two_are_the_same() -> None:
    with private_folder() as one, private_folder() as other:
        make_secret(one)
        make_secret(other)
        assert read_secret(one) == (one / "secret").read_bytes()
        assert len(read_secret(one)) == 32
        assert read_secret(one) != read_secret(other)
        assert one.stat().st_mode & 0o777 == 0o700
        assert (one / "secret").stat().st_mode & 0o777 == 0o600
    assert not one.exists()


@pytest.mark.parametrize("spoiled", ["secret", "."])
def test_what_others_can_read_is_refused(spoiled: str) -> None:
    with private_folder() as folder:
        make_secret(folder)
        (folder / spoiled).chmod(0o755)
        with pytest.raises(ConfigError, match=r"is not for this user alone .*mode: 755"):
            read_secret(folder)


def test_a_link_in_the_place_of_the_secret_or_its_folder_is_refused() -> None:
    with private_folder() as folder, private_folder() as other:
        make_secret(folder)
        (other / "secret").symlink_to(folder / "secret")
        (other / "link").symlink_to(folder)
        with pytest.raises(OSError, match="link"):
            read_secret(other)
        with pytest.raises(ConfigError, match="is not for this user alone"):
            read_secret(other / "link")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_file_of_another_size_is_no_secret(size: int) -> None:
    with private_folder() as folder:
        (folder / "secret").touch(0o600)
        (folder / "secret").write_bytes(bytes(size))
        with pytest.raises(ConfigError, match=rf"this is no secret of a run .*bytes: {size}, due: 32"):
            read_secret(folder)


def test_a_pipe_is_no_secret_and_is_not_waited_for() -> None:
    with private_folder() as folder:
        os.mkfifo(folder / "secret", 0o600)
        with pytest.raises(ConfigError, match="this is no secret of a run"):
            read_secret(folder)


def test_a_place_where_everybody_may_rename_what_is_in_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(
            ConfigError, match=rf"others could replace the files of a run \(folder: {tmp_path}, mode: 777, owner"
        ),
        private_folder(),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_above_where_everybody_may_rename_what_is_in_it_is_refused_behind_a_link_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inner := tmp_path / "shared" / "mine").mkdir(parents=True)
    (link := tmp_path / "link").symlink_to(inner)
    inner.parent.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(link))
    with pytest.raises(ConfigError, match=rf"\(folder: {inner.parent}, mode: 777"), private_folder():
        pass
    inner.parent.chmod(0o1777)
    with private_folder() as folder:
        assert folder.parent == inner


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_folder_of_another_user_is_refused_though_only_owners_may_rename_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o1777)
    os.chown(tmp_path, NOBODY, -1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"mode: 1777, owner: {NOBODY}\)"), private_folder():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_can_neither_read_nor_enter() -> None:
    with private_folder() as folder:
        make_secret(folder)
        child = os.fork()
        if not child:
            os.setuid(NOBODY)
            refused = 0
            for attempt in (lambda: os.listdir(folder), (folder / "secret").read_bytes, lambda: read_secret(folder)):
                try:
                    attempt()
                except (PermissionError, ConfigError):
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
