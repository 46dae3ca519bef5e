"""The help of each command, as a reader meets it."""

import re

import pytest

from stalegrid.cli import COMMANDS, main

Said = pytest.CaptureFixture[str]

WITH_FIELDS = ("train", "compare", "verify", "profile", "plan", "limits", "table")


def helped(command: str, width: int, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stopped:
        main((command, "--help"))
    assert not stopped.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120, 300])
@pytest.mark.parametrize("command", COMMANDS)
def test_lines_are_short_and_free_of_types(
    command: str, width: int, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = helped(command, width, capsys, monkeypatch)
    assert shown.startswith(f"usage: stalegrid {command}")
    assert max(map(len, shown.splitlines())) <= min(width, 120)
    for noise in ("Union", "Literal", "null", "None,", "list[", "``", "type:", "+", "==SUPPRESS=="):
        assert noise not in shown.replace("None for the latter", ""), noise


def test_the_options_of_every_day_come_first_in_the_order_of_a_users_thoughts(
    capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = helped("train", 80, capsys, monkeypatch)
    sections = re.split(r"\n\n(?=[a-z ]+:)", shown)
    everyday = next(section for section in sections if section.startswith("everyday options:"))
    assert re.findall(r"^  (--[a-z-]+)", everyday, re.MULTILINE) == [
        *("--model", "--data", "--method", "--groups", "--stages", "--staleness", "--optimizer", "--lr"),
        *("--batch-size", "--epochs", "--updates", "--seed", "--engine", "--device", "--out", "--config"),
    ]
    assert [section.partition(":")[0] for section in sections[1:]] == [
        *("options", "everyday options", "model", "data", "loss", "optimizer", "schedule", "method", "grid", "mixing"),
        *("codec", "servers", "training", "engine", "devices", "output", "checkpoint", "metrics"),
    ]


@pytest.mark.parametrize("command", WITH_FIELDS)
def test_every_option_is_shown_once_under_the_name_that_people_use(
    command: str, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = helped(command, 120, capsys, monkeypatch)
    names = re.findall(r"^  (--[a-z.-]+)", shown, re.MULTILINE)
    assert len(names) == len(set(names))
    assert not {"--method.name", "--grid.groups", "--grid.stages", "--output.folder", "--mixing.topology"} & set(names)
    assert "--config" in names


@pytest.mark.parametrize(
    "line",
    [
        "--stages N ",
        "--staleness N,N,..|auto ",
        "--lr X ",
        "--method NAME ",
        "--out DIR ",
        "--costs FILE ",
        "--engine processes|simulator ",
        "--topology NAME ",
        "--cuts NAME,.. ",
        "--devices.link X,X,.. ",
        "--devices.slow TEXT ",
        "--output.gap [true|false] ",
        "--model.args.NAME VALUE ",
        "of a learner; one number for each group, such as 64,32, where slow ones shall do less (default: 32)",
        "(default: true)",
        "(default: mlp)",
    ],
)
def test_signs_and_defaults_say_something(line: str, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = helped("train", 120, capsys, monkeypatch)
    assert line in " ".join(shown.split()) + " "


def test_the_commands_are_listed(capsys: Said) -> None:
    with pytest.raises(SystemExit):
        main(("--help",))
    shown = capsys.readouterr().out
    assert all(re.search(rf"^ +{name} ", shown, re.MULTILINE) for name in COMMANDS)
    assert "stalegrid COMMAND --help" in shown
