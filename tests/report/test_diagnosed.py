"""What was measured of the theory is drawn beside what it is held against."""

import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from stalegrid.errors import DataError
from stalegrid.report.figures import Curve, curves
from stalegrid.report.report import write_report
from tests.report.cases import METRICS, Record, diagnosed, folder_of, page_of, trained

BATCHES = "batch normalisation makes the loss of a sample depend on its batch"


def page(folder: Path, *records: Record) -> str:
    return write_report(folder_of(folder, metrics=[*METRICS, *records])).read_text()


def test_each_quantity_is_a_line_beside_its_bound(tmp_path: Path) -> None:
    shown = page(tmp_path / "run", diagnosed(5), diagnosed(10))
    assert "<h2>Diagnosis</h2>" in shown
    for title in ("Squared gradient of the mean model", "Noise of a gradient", "Rate and its limits"):
        assert f"<figcaption>{title}</figcaption>" in shown
    assert "<figcaption>Staleness error of stage 1</figcaption>" in shown
    assert "Consensus distance</figcaption>" not in shown.split("<h2>Diagnosis</h2>")[1]
    apart = {"distance": 0.5, "after_update": 0.75, "bound": None, "every_update": False, "why": "not derived"}
    more = page(tmp_path / "more", diagnosed(5, consensus=apart))
    assert "<figcaption>Consensus distance</figcaption>" in more


def test_the_rate_is_drawn_beside_the_limits_of_stages_and_of_all_together(tmp_path: Path) -> None:
    shown = page(tmp_path / "two", limited(5, 0.2, [0.25, None]), limited(10, 0.3, [0.5, None]))
    lines = [
        Curve("rate", [(1.0, 0.1), (2.0, 0.1)]),
        Curve("limit of all stages", [(1.0, 0.2), (2.0, 0.3)], "--"),
        Curve("limit of stage 0", [(1.0, 0.25), (2.0, 0.5)], "--"),
    ]
    assert curves("Rate and its limits", lines, "epochs", "rate", log=True) in shown
    # The limit of a single stage is that of all, and drawn once.
    one = page(tmp_path / "one", limited(5, 0.2, [0.2]))
    lines = [Curve("rate", [(1.0, 0.1)]), Curve("limit of all stages", [(1.0, 0.2)], "--")]
    assert curves("Rate and its limits", lines, "epochs", "rate", log=True) in one


def limited(version: int, whole: float | None, each: list[float | None]) -> Record:
    stages = [{"error": 0.0, "bound": 0.0, "rate_limit": limit, "why": ""} for limit in each]
    return diagnosed(version, rate_limit=whole, stages=stages)


def test_limits_of_many_stages_differ_in_style_where_colours_come_again(tmp_path: Path) -> None:
    shown = page(tmp_path / "run", limited(5, 0.2, [0.2 + k for k in range(6)]))
    lines = [Curve("rate", [(1.0, 0.1)]), Curve("limit of all stages", [(1.0, 0.2)], "--")]
    lines += [Curve(f"limit of stage {k}", [(1.0, 0.2 + k)], "--" if k < 3 else ":") for k in range(6)]
    assert curves("Rate and its limits", lines, "epochs", "rate", log=True) in shown


def told(folder: Path, **changes: object) -> tuple[str, list[str]]:
    """Return the note of the section, and what stands under its pictures."""
    source = page(folder, diagnosed(5, **changes), diagnosed(10, **changes))
    inside = source.split("<h2>Diagnosis</h2>")[1].split("</section>")[0]
    note, *under = re.findall("<p>(.*?)</p>", inside)
    return note, under


def test_why_there_is_nothing_to_hold_it_against_stands_under_the_picture(tmp_path: Path) -> None:
    noise = {"measured": 2.0, "predicted": None, "bound": None, "why": BATCHES}
    apart = {"distance": 0.5, "after_update": None, "bound": None, "why": "not derived for <such> graphs"}
    stages = [{"error": 0.0, "bound": 0.0, "rate_limit": None, "why": why} for why in ("not known", "trains nothing")]
    limits = {"stages": stages, "rate_limit": None, "rate_limit_why": "not known"}
    _, under = told(tmp_path / "run", noise=noise, consensus=apart, **limits)
    assert under == [
        f"Without predicted and bound: {BATCHES}.",
        "Without bound by one update and bound by all updates: not derived for &lt;such&gt; graphs.",
        "Without limit of all stages and limit of stage 0: not known.",
        "Without limit of stage 1: trains nothing.",
    ]


def test_nothing_is_missed_where_a_line_is_drawn(tmp_path: Path) -> None:
    assert told(tmp_path / "run")[1] == []
    whole = [limited(5, None, [0.2, 0.3]), limited(10, 0.25, [0.2, 0.3])]
    whole[0]["rate_limit_why"] = "the loss bends up nowhere"
    assert "Without" not in page(tmp_path / "other", *whole)


def test_the_note_is_of_lines_that_are_drawn(tmp_path: Path) -> None:
    note, _ = told(tmp_path / "all", consensus={"distance": 0.5, "after_update": 0.75, "bound": 1.0, "why": ""})
    sentences = (
        "dashed what it is held against",
        "K sigma^2 / B",
        "Bounds of staleness errors",
        "largest step",
        "Limits",
    )
    for sentence in sentences:
        assert note.count(sentence) == 1
    stages = [{"error": 0.5, "bound": None, "rate_limit": None, "why": "trains nothing"}]
    noise = {"measured": 2.0, "predicted": None, "bound": None, "why": BATCHES}
    note, _ = told(tmp_path / "none", noise=noise, stages=stages, rate_limit=None)
    assert note == "What was measured of the theory."


def test_a_run_of_the_command_line_says_why(tmp_path: Path) -> None:
    run = ("--groups", "2", "--stages", "2", "--updates", "10", "--diagnose", "5")
    trained(tmp_path / "run", *run, "--optimizer", "adam", "--mixing.lag", "1")
    assert [line for line in page_of(tmp_path / "run").of("p") if line.startswith("Without ")] == [
        f"Without predicted and bound: {BATCHES}.",
        "Without bound by one update and bound by all updates: not derived where what groups mix is late "
        "(mixing.lag: 1).",
        "Without limit of all stages, limit of stage 0 and limit of stage 1: not known for this optimizer (Adam), "
        "which scales gradients as it goes.",
    ]


def test_a_run_that_was_not_diagnosed_has_no_such_part(tmp_path: Path) -> None:
    assert "Diagnosis" not in page(tmp_path / "run")


def test_a_damaged_diagnosis_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 5"):
        page(tmp_path / "run", diagnosed(5, stages=[{"error": "much"}]))
    with pytest.raises(DataError, match="line 5"):
        page(tmp_path / "run", diagnosed(5, rate_limit_why=["none"]))
