"""A run that begins anew leaves nothing of the one before."""

from pathlib import Path

import pytest

from stalegrid.checkpoints.anew import clear
from stalegrid.observe import MODEL, SUMMARY, UNSAVED
from stalegrid.written import replace_all


def test_files_that_were_about_to_be_written_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("")
    (tmp_path / ".part-0").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("stalegrid.written.files.settle", lambda folder: None)  # as if it was killed before
        replace_all(tmp_path, {name: lambda path: path.write_text("{}") for name in (MODEL, UNSAVED, SUMMARY)})
    assert {path.name for path in tmp_path.iterdir()} == {"mine", ".part-0", ".next"}
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
