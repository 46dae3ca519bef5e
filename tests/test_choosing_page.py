"""The commands that docs/choosing-staleness.md shows are run as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from stalegrid.cli import main
from stalegrid.methods.published import METHODS, SERVER_METHODS

PAGE = (Path(__file__).parents[1] / "docs" / "choosing-staleness.md").read_text()


@pytest.mark.thorough
@pytest.mark.timeout(280)
def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [command[:2] for command in commands] == [
        ["stalegrid", name] for name in ("profile", "plan", "table", "limits", "compare")
    ]
    for _, *command in commands:
        assert main(command) == 0


def test_the_methods_that_it_names_have_the_views_that_it_says() -> None:
    views = {method.name: method.view for method in METHODS}
    rows = re.findall(r"^\| [^|]+ \| (`[^|]+`) \(views? (`[^|]+?`)\)", PAGE, flags=re.MULTILINE)
    assert len(rows) == 4
    for names, said in rows:
        named = re.findall(r"`([^`]+)`", names)
        assert {views[name] for name in named} == set(re.findall(r"`([^`]+)`", said))
    assert "softsync" in {method.name for method in SERVER_METHODS}
