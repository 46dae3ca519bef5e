"""Who waited for whom most, as the page says it."""

from pathlib import Path
from typing import Any

import yaml

from stalegrid.observe.timeline import Timeline
from stalegrid.observe.trace import write_trace
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import OBSERVER
from stalegrid.report.timelines import waits_verdict
from stalegrid.report.told import read_told
from tests.report.cases import CONFIG, A, B, folder_of, said, span, trained

SECOND = 1_000_000_000


def waited(path: Path, length: int, config: dict[str, Any] = CONFIG, *, virtual: bool = True) -> list[str]:
    """Stage 0 waits for its gradient, of 10 s so many."""
    folder = folder_of(path, config)
    times = [(A, "F0", 0, 2), (A, "B0", 2 + length, 10), (B, "F0", 0, 10), (OBSERVER, "E0", 0, 900)]
    spans = [span(unit, name, start * SECOND, end * SECOND) for unit, name, start, end in times]
    edge = Edge("gradient", B, A)
    timeline = Timeline(spans, {(edge, 0): 0}, {(edge, 0): (2 + length) * SECOND}, virtual=virtual)
    write_trace(folder / "trace.json", timeline)
    return said(waits_verdict, read_told(folder))


def test_who_waited_longest_for_whom(tmp_path: Path) -> None:
    assert waited(tmp_path, 3) == ["wrong: Longest waited (0,0) for (0,1), 3 s or 30% of the virtual time."]
    assert waited(tmp_path, 0) == ["well: Nobody waited for anybody."]


def test_a_short_wait_is_none_to_mend(tmp_path: Path) -> None:
    # 7 parts before the cut, 6 behind it, as much on either side.
    parts = [{"forward": time, "backward": 2 * time, "output": 8} for time in [1.2] * 7 + [1.4] * 6]
    costs = {"batch_size": 32, "handling": 0.0, "parts": parts}
    (tmp_path / "costs.yaml").write_text(yaml.safe_dump(costs))
    few = ("--groups", "1", "--stages", "2", "--cuts", "7", "--updates", "40", "--output.trace", "true")
    priced = (*few, "--costs", str(tmp_path / "costs.yaml"))
    (line,) = said(waits_verdict, trained(tmp_path / "even", *priced))
    assert line.startswith("well: Nobody waited long; longest (0,")
    (line,) = said(waits_verdict, trained(tmp_path / "slow", *priced, "--devices.slow", "0,1=5"))
    assert line.startswith("wrong: Longest waited (0,0) for (0,1), ")


def test_processes_wait_in_real_time_and_one_process_that_takes_turns_does_not(tmp_path: Path) -> None:
    processes, simulator = (CONFIG | {"engine": {"kind": kind}} for kind in ("processes", "simulator"))
    assert waited(tmp_path, 3, processes, virtual=False) == [
        "wrong: Longest waited (0,0) for (0,1), 3 s or 30% of the time."
    ]
    assert waited(tmp_path, 3, simulator, virtual=False) == []


def test_without_a_trace_nothing_is_said(tmp_path: Path) -> None:
    assert said(waits_verdict, read_told(folder_of(tmp_path))) == []
