"""Two runs side by side."""

import json
import re
from pathlib import Path

import pytest

from stalegrid.cli import main
from stalegrid.errors import ConfigError
from stalegrid.report.figures import BLUE, INK, RED, Curve, curves
from stalegrid.report.report import write_comparison
from tests.report.cases import CONFIG, METRICS, SERVED, TAKEN, Page, diagnosed, evaluated, folder_of, reported, trained

Said = pytest.CaptureFixture[str]


def page_of(first: Path, second: Path) -> Page:
    return Page(write_comparison(first, second))


def rows(page: Page) -> dict[str, list[str]]:
    """Return what each row of each table says behind its name."""
    found = re.findall("<tr>(<td>.*?)</tr>", page.source)
    cells = (re.findall("<td>(.*?)</td>", row) for row in found)
    return {name: rest for name, *rest in cells}


def test_two_runs_of_a_kind(tmp_path: Path) -> None:
    more = [reported(5, 1.0, 2.5), evaluated(5, 1.0, 0.25), reported(10, 2.0, 1.0), evaluated(10, 2.0, 0.75)]
    changed = CONFIG | {"optimizer": {"lr": 0.1}, "grid": CONFIG["grid"] | {"groups": 2}}
    (tmp_path / "a").mkdir()
    page = page_of(folder_of(tmp_path / "a" / "one"), folder_of(tmp_path / "two", changed, more))
    assert page.of("h1") == [f"{tmp_path / 'a' / 'one'} beside {tmp_path / 'two'}"]
    assert page.of("h2")[2:] == ["Numbers", "Settings that differ", "Curves"]
    assert [heading[:3] for heading in page.of("h2")[:2]] == ["A: ", "B: "]
    told = rows(page)
    assert told["test accuracy"] == ["87.50%", "75.00%", "-12.50 points"]
    assert told["training loss"] == ["1.5", "1", "-0.5"]
    assert told["updates"] == ["10", "10", "0"]
    assert told["time"] == ["3 min 21 s", "3 min 21 s", "0"]
    assert told["largest staleness"] == ["2", "2", "0"]
    assert {name for name in told if "." in name} == {"grid.groups", "optimizer.lr"}
    assert told["optimizer.lr"] == ["-", "0.1"]
    lines = [Curve("A", [(1.0, 2.0), (2.0, 1.5)]), Curve("B", [(1.0, 2.5), (2.0, 1.0)], "--")]
    assert curves("Training loss over epochs", lines, "epochs", "training loss") in page.source
    assert "Consensus distance over epochs" not in page.of("figcaption")  # one of them has a single group


def test_two_runs_of_other_kinds_show_what_both_have(tmp_path: Path) -> None:
    page = page_of(folder_of(tmp_path / "served", SERVED, TAKEN), folder_of(tmp_path / "grid"))
    told = rows(page)
    assert told["method.name"] == ["softsync", "pham-ahn"]
    assert told["servers.learners"] == ["3", "-"]
    assert told["largest staleness"] == ["3", "2", "-1"]
    assert "gap at the end, mean over stages" not in told
    assert page.of("figcaption") == [
        f"{what} over epochs" for what in ("Training loss", "Test loss", "Training accuracy", "Test accuracy")
    ]


def legend() -> list[Curve]:
    return [Curve("A", [], "-", INK), Curve("B", [], "--", INK)]


def test_what_both_were_diagnosed_with_is_drawn_in_one_picture(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", metrics=[*METRICS, diagnosed(5), diagnosed(10)])
    noise = {"measured": 1.0, "predicted": None, "bound": None, "why": "batch normalisation"}
    two = folder_of(tmp_path / "two", metrics=[*METRICS, diagnosed(10, rate_limit=0.05, noise=noise)])
    page = page_of(one, two)
    assert page.of("h2")[-2:] == ["Curves", "Diagnosis"]
    assert page.of("figcaption")[-5:] == [
        "Squared gradient of the mean model",
        "Noise of a gradient",
        "Staleness error of stage 0",
        "Staleness error of stage 1",
        "Rate and its limits",
    ]
    lines = [
        Curve("rate", [(1.0, 0.1), (2.0, 0.1)], "-", BLUE),
        Curve("", [(2.0, 0.1)], "--", BLUE),
        Curve("limit of all stages", [(1.0, 0.3), (2.0, 0.3)], "-", RED),
        Curve("", [(2.0, 0.05)], "--", RED),
    ]
    assert curves("Rate and its limits", [*lines, *legend()], "epochs", "rate", log=True) in page.source
    # What only one of them has is left out.
    lines = [Curve("measured", [(1.0, 2.0), (2.0, 2.0)], "-", BLUE), Curve("", [(2.0, 1.0)], "--", BLUE)]
    assert curves("Noise of a gradient", [*lines, *legend()], "epochs", "variance") in page.source


def test_single_stages_of_unlike_grids_are_not_held_against_each_other(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", metrics=[*METRICS, diagnosed(5)])
    two = folder_of(tmp_path / "two", metrics=[*METRICS, diagnosed(5, stages=[{"error": 0.5, "rate_limit": 0.1}])])
    captions = page_of(one, two).of("figcaption")
    assert captions[-3:] == ["Squared gradient of the mean model", "Noise of a gradient", "Rate and its limits"]


def test_of_many_stages_the_first_have_limits_in_the_picture(tmp_path: Path) -> None:
    stages = [{"error": 0.5, "bound": 1.0, "rate_limit": 0.1 + k} for k in range(5)]
    folders = [folder_of(tmp_path / name, metrics=[*METRICS, diagnosed(5, stages=stages)]) for name in ("one", "two")]
    shown = page_of(folders[0], folders[1]).of("text")
    assert [line for line in shown if line.startswith("limit of ")] == [
        "limit of all stages",
        *(f"limit of stage {k}" for k in range(3)),
    ]


def test_a_run_that_was_diagnosed_beside_one_that_was_not(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", metrics=[*METRICS, diagnosed(5)])
    assert "Diagnosis" not in page_of(one, folder_of(tmp_path / "two")).of("h2")


def test_what_each_verdict_says_stands_under_its_run(tmp_path: Path) -> None:
    rose = [reported(5, 1.0, 2.0), reported(10, 2.0, 3.0)]
    source = page_of(folder_of(tmp_path / "one"), folder_of(tmp_path / "two", metrics=rose)).source
    a, b = source.index("<h2>A: "), source.index("<h2>B: ")
    assert a < source.index("loss fell") < b < source.index("loss rose")


def test_real_runs_and_one_that_failed_at_once(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    # A cut that is said: measured costs may choose another one for the second run.
    few = ("--groups", "2", "--stages", "2", "--cuts", "2", "--updates", "10")
    for folder in folders[:2]:
        trained(folder, *few)
    page = page_of(*folders[:2])
    assert "None." in page.of("p")  # nothing was chosen otherwise
    assert {"Gap over epochs, mean over stages", "Consensus distance over epochs"} <= set(page.of("figcaption"))
    folder_of(folders[2], metrics=[])
    (folders[2] / "failure.json").write_text(json.dumps({"by": "NonFiniteLoss", "why": "the loss is nan"}))
    page = page_of(folders[2], folders[0])
    assert "Numbers" not in page.of("h2")
    assert "Curves" not in page.of("h2")
    assert any(line.startswith("It ended in NonFiniteLoss") for line in page.of("span"))


def test_it_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = page_of(folder_of(tmp_path / "one"), folder_of(tmp_path / "two"))
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|src=", page.source)
    names = [value for _, name, value in page.attributes if name == "id"]
    assert len(set(names)) == len(names)


def test_the_command_writes_one_page_where_it_is_asked_to(tmp_path: Path, capsys: Said) -> None:
    one, two = folder_of(tmp_path / "one"), folder_of(tmp_path / "two")
    assert main(["report", str(one), str(two)]) == 0
    assert (one / "report-beside-two.html").exists()
    assert main(["report", str(one), str(two), "--out", str(tmp_path / "both.html")]) == 0
    assert main(["report", str(one), "--out", str(tmp_path / "alone.html")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.rpartition("/")[2] for line in told] == ["report-beside-two.html", "both.html", "alone.html"]
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "both.html", "alone.html"}


def test_the_same_run_and_a_folder_of_none_are_refused(tmp_path: Path, capsys: Said) -> None:
    one = folder_of(tmp_path / "one", metrics=METRICS)
    (tmp_path / "again").symlink_to(one)
    with pytest.raises(ConfigError, match="both are the same run"):
        write_comparison(one, tmp_path / "again")
    for pair in ([one, tmp_path / "none"], [tmp_path / "none", one]):
        assert main(["report", *map(str, pair)]) == 2
        assert re.fullmatch(r"stalegrid report: this is not the folder of a run .*none.*\n", capsys.readouterr().err)
    assert not list(tmp_path.rglob("*.html"))
