"""Runs that are timed, slowed down or traced: what that changes, and that it never changes a number."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.observe.timeline import Timeline
from stalegrid.observe.trace import read_trace
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.runs import execute
from stalegrid.timing.costs import NANOSECONDS, Cost, CostTable
from tests.cases import changed, make_settings, make_task

DISTURBED: dict[str, dict[str, Any]] = {
    "slow": {"slow": "0,1=3.0"},
    "jitter": {"jitter": 0.7, "stalls": [0.1, 50.0]},
    "links": {"link": [2.0, 1.0], "lateral_link": [10.0, 5.0], "outages": "1,0@20-500;0,0>0,1@0-100"},
}


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    path = tmp_path / "costs.yaml"
    CostTable(4, (Cost(forward=2, backward=4, update=1), Cost(forward=3, backward=5, update=1))).write(path)
    return path


def run(settings: Settings, **more: Any) -> None:
    execute(make_task(), changed(settings, **more), quiet=True, keep_units=True)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in ("seconds", "samples_per_second", "virtual_seconds")}


@pytest.mark.parametrize("disturbed", DISTURBED)
def test_virtual_time_changes_no_number(disturbed: str, costs: Path, tmp_path: Path) -> None:
    plain = make_settings(2, 2, engine="simulator", log_every=1)
    run(plain, out=tmp_path / "plain")
    run(plain, out=tmp_path / "timed", costs=costs, **DISTURBED[disturbed])
    assert list(map(untimed, lines(tmp_path / "timed"))) == list(map(untimed, lines(tmp_path / "plain")))
    for name in ("model", "units"):
        before, after = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("plain", "timed"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_metrics_and_summary_say_virtual_seconds_that_grow(costs: Path, tmp_path: Path) -> None:
    run(make_settings(1, 2, engine="simulator", log_every=1), out=tmp_path / "run", costs=costs)
    seconds = [line["virtual_seconds"] for line in lines(tmp_path / "run") if line["kind"] == "train"]
    assert seconds == sorted(seconds)
    # Stage 1 is the slower one: 9 ms a batch; stage 0 makes its last update after that of stage 1 and its own backward.
    assert seconds[-1] - seconds[-2] == pytest.approx(0.009)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["virtual_seconds"] == seconds[-1]


def executed(timeline: Timeline) -> dict[Unit, list[str]]:
    found: dict[Unit, list[str]] = defaultdict(list)
    for span in sorted(timeline.spans, key=lambda s: (s.start, s.end)):
        if span.unit != OBSERVER:
            found[span.unit].append(f"{span.kind.value}{span.index}")
    return found


def test_the_trace_of_processes_shows_the_actions_and_messages_of_the_simulator(tmp_path: Path) -> None:
    settings = make_settings(2, 2, log_every=1, trace=True)
    run(settings, out=tmp_path / "processes")
    run(settings, out=tmp_path / "simulator", engine="simulator")
    real = read_trace(tmp_path / "processes" / "trace.json")
    assert executed(real) == executed(read_trace(tmp_path / "simulator" / "trace.json"))
    grid = [flight for flight in real.flights if flight.edge.target != OBSERVER]
    assert {flight.edge.name for flight in grid} == {"activation", "gradient", "parameters"}
    assert all(flight.left < flight.arrived for flight in grid)
    ends = {(s.unit, s.kind, s.index): s.end for s in real.spans}
    starts = {(s.unit, s.kind, s.index): s.start for s in real.spans}
    for flight in grid:
        if flight.edge.name == "activation":
            assert ends[flight.edge.source, Kind.FORWARD, flight.index] <= flight.left
            assert flight.arrived <= starts[flight.edge.target, Kind.FORWARD, flight.index]


def test_a_virtual_trace_is_dated_in_virtual_time(costs: Path, tmp_path: Path) -> None:
    settings = make_settings(1, 2, engine="simulator", trace=True, costs=costs)
    run(settings, out=tmp_path / "run")
    spans = read_trace(tmp_path / "run" / "trace.json").spans
    forwards = [s for s in spans if s.unit == Unit(0, 1) and s.kind is Kind.FORWARD]
    assert all(s.end - s.start == 3 * NANOSECONDS for s in forwards)
    assert min(s.start for s in forwards) == 2 * NANOSECONDS


def test_processes_take_as_long_as_the_costs_say(costs: Path, tmp_path: Path) -> None:
    run(make_settings(1, 2), out=tmp_path / "run", costs=costs, emulate=True, slow="0,1=2.0", trace=True)
    spans = read_trace(tmp_path / "run" / "trace.json").spans
    usual = {Kind.FORWARD: (2, 6), Kind.BACKWARD: (4, 10), Kind.UPDATE: (1, 2)}
    timed = [s for s in spans if s.kind in usual]
    assert timed
    assert all(s.end - s.start >= usual[s.kind][s.unit.stage] * NANOSECONDS for s in timed)


def test_staleness_auto_is_settled_and_written_down(costs: Path, tmp_path: Path) -> None:
    run(make_settings(1, 2, staleness="auto"), out=tmp_path / "given", costs=costs)
    settled = yaml.safe_load((tmp_path / "given" / "config.yaml").read_text())
    assert settled["method"]["staleness"] == [1, 0]
    run(make_settings(1, 2, staleness="auto", cuts=None), out=tmp_path / "measured")
    summary = json.loads((tmp_path / "measured" / "summary.json").read_text())
    assert len(summary["cuts"]) == 1
    assert summary["staleness"][1]["max"] == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"engine": "simulator", "slow": "0,1=2"}, "the simulator has only where costs are known.*--costs FILE"),
        ({"engine": "simulator", "jitter": 0.5}, "only where costs are known"),
        ({"link": [1.0]}, "not emulated on processes.*engine simulator"),
        ({"outages": "0,0@1-2"}, "not emulated on processes"),
        ({"emulate": True}, "needs costs"),
        ({"engine": "simulator", "emulate": True}, "for processes"),
        ({"slow": "0,7=2"}, r"no such unit \(unit: 0,7, groups: 1, stages: 2\)"),
        ({"slow": "0,1"}, r"GROUP,STAGE=FACTOR.*\(slow: '0,1'\)"),
        ({"costs": Path("nowhere.yaml")}, "cannot be read.*nowhere.yaml"),
        ({"method": "1f1b", "staleness": "auto"}, "has no staleness .staleness: auto"),
        ({"staleness": "auto", "within": 1.5}, r"within.*\(within: 1.5\)"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(make_settings(1, 2), out=tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()
