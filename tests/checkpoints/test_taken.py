"""One run at a time writes to a folder, as long as one of its processes lives."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from stalegrid.checkpoints import check_free, forget_after, shared, taken, write_end
from stalegrid.checkpoints.taken import end_of
from stalegrid.errors import ConfigError


def test_a_folder_is_free_again_when_the_last_process_of_a_run_has_ended(tmp_path: Path) -> None:
    check_free(tmp_path)
    with ExitStack() as worker:
        with taken(tmp_path):
            worker.enter_context(shared(tmp_path))
        with pytest.raises(ConfigError, match="a process of it has not ended yet"):
            check_free(tmp_path)
    check_free(tmp_path)
    with taken(tmp_path), pytest.raises(ConfigError, match="the run still goes on"), taken(tmp_path):
        pass


def test_what_lies_behind_a_version_goes_and_nothing_else(tmp_path: Path) -> None:
    for name in ("000000010", "000000020", "000000030", "mine"):
        (tmp_path / name).mkdir()
    write_end(tmp_path, 40)
    assert end_of(tmp_path) == "40"
    forget_after(tmp_path, 20)
    assert {path.name for path in tmp_path.iterdir()} == {"000000010", "000000020", "mine"}
    assert end_of(tmp_path) is None
