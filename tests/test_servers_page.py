"""The lines that the page on parameter servers shows are run as they stand."""

import re
from pathlib import Path

import pytest

from stalegrid.cli import main
from stalegrid.methods.published import SERVER_METHODS

PAGE = (Path(__file__).parents[1] / "docs" / "servers.md").read_text()


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^stalegrid (.*?)\s*(?:#.*)?$", PAGE, flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["train", "replay", "train", "verify"]
    for command in commands:
        assert main(command.split()) == 0


def test_the_page_names_every_method_with_servers() -> None:
    assert all(f"| `{method.name}` |" in PAGE for method in SERVER_METHODS)
