"""The picture of a pipeline shows what the program says of it."""

from pathlib import Path

import pytest

from benchmarks.timeline import SHOWN, STAGES, Bar, late_by, main, traced


@pytest.fixture(scope="module")
def bars() -> list[Bar]:
    return traced()


def test_stage_k_is_as_late_as_stages_follow_it(bars: list[Bar]) -> None:
    find = {(bar.stage, bar.kind, bar.index): bar for bar in bars}
    late = [late_by(bars, find[k, "forward", SHOWN], find[k, "update", SHOWN]) for k in range(STAGES)]
    assert late == [3, 2, 1, 0]


def test_it_is_drawn_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for name in ("a.svg", "b.svg"):
        monkeypatch.setattr("sys.argv", ["timeline", str(tmp_path / name)])
        main()
        drawn.append((tmp_path / name).read_text())
    assert drawn[0] == drawn[1]
    assert drawn[0].count("stage") >= STAGES
