"""Hosts on which something else would be trained are named."""

import sys
from pathlib import Path

import pytest

from stalegrid.cli import main
from stalegrid.doctor.trained import look, rows
from stalegrid.errors import ConfigError
from stalegrid.plans import Task
from tests.doctor.hosts import hosts

TOLD = dict.fromkeys(("settings", "files", "model", "data"), "0123abcd")
Said = pytest.CaptureFixture[str]


def test_nothing_is_looked_at_where_nobody_says_what_is_trained() -> None:
    assert rows(hosts(look(None), {}, {})) == []


@pytest.mark.parametrize("what", TOLD)
def test_what_differs_has_to_be_changed(what: str) -> None:
    found = rows(hosts(TOLD, {}, {what: "another"}))
    assert [row.what for row in found] == list(TOLD)
    assert [row.what for row in found if row.needed] == [what]
    (line,) = (line for row in found for line in row.needed)
    assert line.endswith("(a: 0123abcd; b: another)")


def test_what_cannot_be_made_on_one_host_is_told_of_that() -> None:
    def make() -> tuple[str, Task]:
        raise ConfigError("the folder is empty (data.folder: x)")

    unable = look(make)
    assert unable == {"problem": "the folder is empty (data.folder: x)"}
    found = rows([*hosts(TOLD, {}), *hosts(unable, {}, {})[1:]])
    assert [line for row in found for line in row.needed] == [
        "b: mend what is said of it: the folder is empty (data.folder: x)"
    ]


NETS, SETS = (
    "from torch import nn\nmake = lambda: nn.Linear({}, 2)\n",
    (
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "make = lambda: (TensorDataset(torch.full((64, {0}), {1}), torch.zeros(64, dtype=torch.long)), None)\n"
    ),
)


def test_files_models_and_data_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    seen = []
    for number, (width, value, comment) in enumerate([(4, 1.0, ""), (4, 1.0, "# other\n"), (4, 2.0, ""), (5, 1.0, "")]):
        (folder := tmp_path / str(number)).mkdir()
        monkeypatch.chdir(folder)
        (folder / "doctored_nets.py").write_text(NETS.format(width) + comment)
        (folder / "doctored_sets.py").write_text(SETS.format(width, value))
        assert main(["doctor", "--model", "doctored_nets:make", "--data", "doctored_sets:make"]) == 0
        for name in ("doctored_nets", "doctored_sets"):
            del sys.modules[name]
        lines = capsys.readouterr().out.splitlines()
        words = [line.split() for line in lines]
        seen.append({row[1]: row[2] for row in words if len(row) == 3 and row[1] in TOLD})
    first, other_comment, other_data, other_model = seen
    assert first["settings"] == other_comment["settings"] == other_data["settings"] == other_model["settings"]
    assert len({seen["files"] for seen in (first, other_comment, other_data, other_model)}) == 4
    assert (first["model"], first["data"]) == (other_comment["model"], other_comment["data"])
    assert first["model"] == other_data["model"]
    assert first["data"] != other_data["data"]
    assert first["model"] != other_model["model"]


def test_a_model_that_cannot_be_made_has_to_be_changed(capsys: Said) -> None:
    assert main(["doctor", "--model", "nowhere.at_all:make"]) == 1
    assert "change: " in capsys.readouterr().out
