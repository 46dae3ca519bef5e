"""The picture of time to quality shows what was trained, over the seconds that were measured."""

import json
import statistics
from pathlib import Path

import pytest

from benchmarks.curves import SEEDS, TARGET, chosen, kept
from benchmarks.far_loss import LEARNED
from benchmarks.quality import FOREIGN, RESULTS, draw, main
from tests.benchmarks.pictures import assert_same

ROOT = Path(__file__).parents[2]
PICTURE = "docs/time-to-quality.svg"

FIGURES = json.loads(RESULTS.read_text())["far-loss"]["figures"]


@pytest.mark.parametrize("way", FOREIGN)
def test_a_line_comes_to_the_last_loss_when_its_updates_have_taken_their_time(way: str) -> None:
    (axes,) = draw().axes
    (line,) = [line for line in axes.lines if line.get_label() == FOREIGN[way]]
    curves = chosen(kept(), LEARNED[way], range(SEEDS))
    seconds, losses = (list(found) for found in line.get_data())
    assert losses[-1] == pytest.approx(statistics.fmean(curve.losses[-1] for curve in curves))
    there = statistics.median(curve.updates or 0 for curve in curves) / curves[0].trained * seconds[-1]
    assert there == pytest.approx(FIGURES[f"{way}, s to a loss of {TARGET}"]["median"])


def test_everybody_of_this_library_who_was_measured_is_shown() -> None:
    (axes,) = draw().axes
    shown = {str(line.get_label()) for line in axes.lines}
    measured = {name.partition(", samples/s")[0] for name in FIGURES if name.endswith(", samples/s")}
    assert {name.removeprefix("stalegrid: ") for name in shown if name.startswith("stalegrid")} == {
        way for way in measured if way.startswith(("K=", "S="))
    }


def test_it_is_drawn_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.svg", "b.svg"):
        monkeypatch.setattr("sys.argv", ["quality", str(tmp_path / name)])
        main()
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()
    assert_same(tmp_path / "a.svg", ROOT / PICTURE, f"python -m benchmarks.quality {PICTURE}")
