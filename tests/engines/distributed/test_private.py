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
        first, second = make_secret(one), make_secret(other)
        assert read_secret(first) == first.read_bytes()
        assert len(read_secret(first)) == 32
        assert read_secret(first) != read_secret(second)
        assert one.stat().st_mode & 0o777 == 0o700
        assert first.stat().st_mode & 0o777 == 0o600
    assert not one.exists()


@pytest.mark.parametrize("spoiled", ["file", "folder"])
def test_what_others_can_read_is_refused(spoiled: str) -> None:
    with private_folder() as folder:
        path = make_secret(folder)
        (path if spoiled == "file" else folder).chmod(0o755)
        with pytest.raises(ConfigError, match=r"is not for this user alone .*mode: 755"):
            read_secret(path)


def test_a_link_in_the_place_of_the_secret_is_refused() -> None:
    with private_folder() as folder:
        path = make_secret(folder)
        link = folder / "link"
        link.symlink_to(path)
        with pytest.raises(OSError, match="link"):
            read_secret(link)


def test_a_place_where_everybody_may_rename_what_is_in_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(ConfigError, match=rf"others could replace the files of a run \(folder: {tmp_path}\)"),
        private_folder(),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_can_neither_read_nor_enter() -> None:
    with private_folder() as folder:
        path = make_secret(folder)
        child = os.fork()
        if not child:
            os.setuid(NOBODY)
            refused = 0
            for attempt in (lambda: os.listdir(folder), path.read_bytes, lambda: read_secret(path)):
                try:
                    attempt()
                except PermissionError:
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
