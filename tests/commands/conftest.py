from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.own import NETS, SETS, modules_of


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which holds the user's own nets.py and sets.py."""
    monkeypatch.chdir(tmp_path)
    with modules_of(tmp_path, nets=NETS, sets=SETS):
        yield tmp_path
