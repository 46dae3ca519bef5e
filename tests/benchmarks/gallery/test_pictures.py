from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from benchmarks.gallery import page
from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.entry import Entry, Record, Same
from benchmarks.gallery.pictures import pictures
from tests.benchmarks.pictures import assert_same

DSP, LEARNERS = ENTRIES["dsp"], ENTRIES["learners"]


def record(error: float, failed: str | None = None) -> Record:
    return {"failed": failed, "curve": [[1.0, error + 1, 1.0], [2.0, error, 0.5]]}


def panels(entry: Entry, seeds: Sequence[Same]) -> dict[str, dict[str, list[float]]]:
    """Return what lines of a picture show, by panel and label."""
    (picture,) = pictures(entry, "cpu", seeds)
    return {
        axes.get_title(): {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
        for axes in picture.draw().axes
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    page.write(folder)
    return folder


@pytest.mark.parametrize("name", sorted(path.name for path in page.DOCS.glob("gallery-*.svg")))
def test_pictures_are_those_of_what_is_kept(name: str, drawn: Path) -> None:
    assert_same(drawn / name, page.DOCS / name, "python -m benchmarks.gallery --page")


def test_a_line_is_the_mean_over_the_seeds_that_have_a_number() -> None:
    ways = [way.name for way in DSP.scales["cpu"].ways]
    seeds = [{ways[0]: record(10.0 + seed), ways[1]: record(20.0, "nan" if seed else None)} for seed in range(2)]
    seeds[0][ways[2]] = record(30.0, "nan")
    assert panels(DSP, seeds) == {"": {ways[0]: [11.5, 10.5], ways[1]: [21.0, 20.0]}}
    assert pictures(DSP, "cpu", [{ways[2]: seeds[0][ways[2]]}]) == []


def test_a_distribution_is_that_of_all_seeds_that_have_one() -> None:
    counted: Record = {"failed": None, "curve": []}
    seeds = [{"n=1, inverse": counted | {"tau_counts": [1, 5]}}, {"n=1, inverse": counted | {"tau_counts": [0, 3, 1]}}]
    (picture,) = pictures(LEARNERS, "cpu", [*seeds, {"n=1, inverse": counted}])  # the last is of before it was kept
    assert picture.file == "gallery-learners-staleness-cpu.svg"
    (axes,) = picture.draw().axes
    (steps,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    values, edges, _ = steps.get_data()
    assert list(values) == [0.1, 0.8, 0.1]
    assert list(edges) == [-0.5, 0.5, 1.5, 2.5]


@pytest.mark.parametrize("name", ["grid", "text"])
def test_a_panel_has_the_ways_of_as_many_stages_and_no_two_lines_alike(name: str) -> None:
    entry = ENTRIES[name]
    ways = [way.name for way in entry.scales["cpu"].ways]
    (picture,) = pictures(entry, "cpu", [{way: record(10.0) for way in ways}])
    shown = []
    for axes in picture.draw().axes:
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == len(axes.lines)
        shown += [(axes.get_title().removeprefix("K = "), str(line.get_label())) for line in axes.lines]
    assert sorted(way for _, way in shown) == sorted(ways)
    assert all(f"K={stages} " in way or f" x {stages}" in way for stages, way in shown)
