import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stalegrid.errors import ConfigError
from stalegrid.observe.timeline import Span, Timeline
from stalegrid.observe.trace import FORMAT, read_trace, write_trace
from stalegrid.programs.actions import Edge, Kind
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.programs.messages import END

A, B = Unit(0, 0), Unit(0, 1)
Event = dict[str, Any]


def span(unit: Unit, name: str, start: int, end: int) -> Span:
    return Span(unit, Kind(name[0]), int(name[1:]), start, end)


def events_of(timeline: Timeline, tmp_path: Path) -> list[Event]:
    path = tmp_path / "trace.json"
    write_trace(path, timeline)
    events: list[Event] = json.loads(path.read_text())["traceEvents"]
    return events


def named(events: list[Event], unit: Unit) -> str:
    thread = "observer" if unit == OBSERVER else f"unit {unit}"
    places = [e for e in events if e["name"] == "thread_name" and e["args"]["name"] == thread]
    assert len(places) == 1
    return f"{places[0]['pid']} {places[0]['tid']}"


def on(events: list[Event], unit: Unit, phases: str) -> list[Event]:
    place = named(events, unit)
    return [e for e in events if f"{e['pid']} {e['tid']}" == place and e["ph"] in phases]


def drawn_arrows(events: list[Event]) -> list[tuple[str, str, str]]:
    """Bind arrows as viewers do: to the action that began last on their thread."""
    newest: dict[int, str] = {}
    begun: dict[int, str] = {}
    found = []
    for event in sorted((e for e in events if e["ph"] in "Xsf"), key=lambda e: float(e["ts"])):
        if event["ph"] == "X":
            newest[event["tid"]] = event["name"]
        elif event["ph"] == "s":
            assert event["id"] not in begun
            begun[event["id"]] = newest[event["tid"]]
        else:
            assert event["bp"] == "e"
            found.append((event["name"], begun.pop(event["id"]), newest[event["tid"]]))
    assert not begun
    return sorted(found)


def test_actions_have_names_categories_and_microseconds(tmp_path: Path) -> None:
    timeline = Timeline([span(A, "F4", 1_234_567, 1_234_568), span(B, "G0", 0, 2_000), span(B, "S3", 2_000, 2_500)])
    events = events_of(timeline, tmp_path)
    (forward,) = on(events, A, "X")
    assert (forward["name"], forward["cat"], forward["ts"], forward["dur"]) == ("F4", "forward", 1234.567, 0.001)
    assert [(e["name"], e["cat"], e["ts"], e["dur"]) for e in on(events, B, "X")] == [
        ("G0", "recompute", 0.0, 2.0),
        ("S3", "share", 2.0, 0.5),
    ]


def test_a_group_is_a_process_and_a_unit_a_thread_in_their_order(tmp_path: Path) -> None:
    units = [Unit(1, 1), OBSERVER, Unit(0, 1), Unit(1, 0), Unit(0, 0)]
    events = events_of(Timeline([span(unit, "U0", 0, 1) for unit in units]), tmp_path)

    def told(kind: str, key: str) -> dict[int, Any]:
        place = "pid" if kind.startswith("process") else "tid"
        return {e[place]: e["args"][key] for e in events if e["name"] == kind}

    processes, orders = told("process_name", "name"), told("process_sort_index", "sort_index")
    assert [processes[pid] for pid in sorted(orders, key=orders.__getitem__)] == ["group 0", "group 1", "observer"]
    threads, orders = told("thread_name", "name"), told("thread_sort_index", "sort_index")
    in_order = [threads[tid] for tid in sorted(orders, key=orders.__getitem__)]
    assert [name for name in in_order if name != "observer"] == [f"unit ({s},{k})" for s in (0, 1) for k in (0, 1)]
    homes = {threads[e["tid"]]: processes[e["pid"]] for e in events if e["ph"] == "X"}
    assert homes == {"observer": "observer"} | {f"unit ({s},{k})": f"group {s}" for s in (0, 1) for k in (0, 1)}
    assert not set(processes) & set(threads)
    assert 0 not in {*processes, *threads}


def test_servers_share_a_process_and_learners_have_one_each(tmp_path: Path) -> None:
    units = [learner(1), OBSERVER, server(1), learner(0), server(0)]
    events = events_of(Timeline([span(unit, "U0", 0, 1) for unit in units]), tmp_path)

    def told(kind: str, place: str) -> list[str]:
        named = {e[place]: e["args"]["name"] for e in events if e["name"] == f"{kind}_name"}
        orders = {e[place]: e["args"]["sort_index"] for e in events if e["name"] == f"{kind}_sort_index"}
        assert len(named) == len(orders) == len(set(orders.values()))
        return [named[number] for number in sorted(orders, key=orders.__getitem__)]

    assert told("process", "pid") == ["servers", "learner 0", "learner 1", "observer"]
    assert told("thread", "tid") == ["server 0", "server 1", "learner 0", "learner 1", "observer"]
    processes, threads = {e["pid"] for e in events}, {e["tid"] for e in events}
    assert not processes & threads
    assert min(processes | threads) > 0
    homes = {e["tid"]: e["pid"] for e in events if e["ph"] == "X"}
    assert len(homes) == 5
    assert len(set(homes.values())) == 4


def test_a_learner_that_did_nothing_is_a_learner_in_the_name_of_what_it_was_sent(tmp_path: Path) -> None:
    edge = Edge("weights", server(0), learner(3))
    times = {(edge, 0): 1, (edge, END): 2}
    timeline = Timeline([span(server(0), "A0", 0, 1), span(server(0), "X1", 1, 2)], times, times)
    messages = [e["name"] for e in events_of(timeline, tmp_path) if e["ph"] == "b"]
    assert messages == ["weights #0 to learner 3", "weights end to learner 3"]


def test_no_arrow_leads_to_a_server(tmp_path: Path) -> None:
    done = [span(learner(0), "F0", 0, 1), span(learner(0), "B0", 1, 2)]
    taken = [span(server(0), "T0", 3, 4), span(server(0), "U0", 4, 5)]
    assert drawn_arrows(events_of(Timeline([*done, *taken]), tmp_path)) == []


def test_gaps_of_a_unit_are_waits_unless_they_are_short(tmp_path: Path) -> None:
    spans = [
        span(A, "B0", 12_000, 20_000),
        span(A, "F0", 5_000, 7_000),
        span(A, "U0", 20_999, 30_000),
        span(A, "F1", 31_000, 32_000),
        span(B, "F0", 8_000, 9_000),
    ]
    events = events_of(Timeline(spans), tmp_path)
    waits = [(e["name"], e["ts"], e["dur"]) for e in on(events, A, "X") if e["cat"] == "wait"]
    assert waits == [("wait", 7.0, 5.0), ("wait", 30.0, 1.0)]
    assert not [e for e in on(events, B, "X") if e["cat"] == "wait"]


def test_an_arrow_leads_from_each_forward_to_the_update_that_used_it(tmp_path: Path) -> None:
    names = ["F0", "F1", "F2", "B0", "B1", "U0", "F3", "B2", "U1", "B3"]
    spans = [span(A, name, 10 * i, 10 * i + 8) for i, name in enumerate(names)]
    other = [span(B, name, 10 * i, 10 * i + 10) for i, name in enumerate(["F0", "B0", "U0"])]
    events = events_of(Timeline([*other, *reversed(spans)]), tmp_path)
    assert drawn_arrows(events) == [
        ("batch 0", "F0", "U0"),
        ("batch 0", "F0", "U0"),
        ("batch 1", "F1", "U0"),
        ("batch 2", "F2", "U1"),
    ]
    (end,) = (e for e in on(events, B, "f"))
    (begin,) = (e for e in on(events, B, "s"))
    assert (begin["ts"], end["ts"], begin["id"]) == (0.0, 0.02, end["id"])


def test_arrows_find_actions_that_took_no_time(tmp_path: Path) -> None:
    spans = [
        span(A, "F0", 0, 10),
        span(A, "B0", 10, 30),
        span(A, "U0", 30, 30),
        span(A, "F1", 30, 40),
        span(A, "B1", 40, 40),
        span(A, "U1", 40, 40),
        span(A, "F2", 40, 50),
    ]
    arrows = drawn_arrows(events_of(Timeline(spans), tmp_path))
    assert arrows == [("batch 0", "F0", "U0"), ("batch 1", "F1", "U1")]


def test_messages_under_way_at_once_have_lanes_of_their_own(tmp_path: Path) -> None:
    up, down = Edge("activation", A, B), Edge("gradient", B, A)
    timeline = Timeline(
        [span(A, "F0", 0, 1), span(B, "F0", 0, 1)],
        {(up, 0): 1_000, (up, 1): 2_000, (up, 2): 4_000, (up, 3): 5_500, (down, 7): 2_500},
        {(up, 0): 4_000, (up, 1): 5_000, (up, 2): 6_000, (up, 3): 7_000, (down, 7): 2_500},
    )
    events = events_of(timeline, tmp_path)

    def shown(unit: Unit) -> list[tuple[str, float, float, str]]:
        begins, ends = on(events, unit, "b"), on(events, unit, "e")
        assert [(e["name"], e["id2"], e["cat"]) for e in begins] == [(e["name"], e["id2"], e["cat"]) for e in ends]
        return [(b["name"], b["ts"], e["ts"], b["id2"]["local"]) for b, e in zip(begins, ends, strict=True)]

    first, second, third, fourth = shown(A)
    assert first[:3] == ("activation #0 to (0,1)", 1.0, 4.0)
    assert second[:3] == ("activation #1 to (0,1)", 2.0, 5.0)
    assert third[:3] == ("activation #2 to (0,1)", 4.0, 6.0)
    assert fourth[:3] == ("activation #3 to (0,1)", 5.5, 7.0)
    assert first[3] == third[3] != second[3] == fourth[3]
    assert [s[:3] for s in shown(B)] == [("gradient #7 to (0,0)", 2.5, 2.5)]


def test_the_track_of_messages_is_named_after_its_sender(tmp_path: Path) -> None:
    edge = Edge("activation", A, B)
    events = events_of(Timeline([], {(edge, 0): 0, (edge, 1): 1}, {(edge, 0): 9, (edge, 1): 9}), tmp_path)
    first: dict[str, str] = {}
    for event in sorted((e for e in events if "id2" in e), key=lambda e: float(e["ts"])):
        first.setdefault(event["id2"]["local"], event["name"])
    assert list(first.values()) == ["sends of (0,0)"] * 2


def test_a_message_is_never_shown_to_arrive_before_it_left(tmp_path: Path) -> None:
    edge = Edge("activation", A, B)
    timeline = Timeline([], {(edge, 0): 5_000}, {(edge, 0): 4_000})
    events = events_of(timeline, tmp_path)
    assert [e["ts"] for e in events if e["ph"] in "be"] == [5.0, 5.0]
    assert read_trace(tmp_path / "trace.json") == timeline


UNITS = st.builds(Unit, st.integers(0, 3), st.integers(0, 3)) | st.builds(server, st.integers(0, 2)) | st.just(OBSERVER)
TIMES = st.integers(0, 2**61)
SPANS = st.builds(
    lambda unit, kind, index, start, length: Span(unit, kind, index, start, start + length),
    UNITS,
    st.sampled_from(Kind),
    st.integers(0, 9),
    TIMES,
    TIMES,
)
EDGES = st.builds(Edge, st.sampled_from(["activation", "gradient-part", 'a "name"']), UNITS, UNITS)
MESSAGES = st.dictionaries(st.tuples(EDGES, st.integers(END, 9)), TIMES, max_size=8)


@given(st.builds(Timeline, st.lists(SPANS, max_size=12), MESSAGES, MESSAGES, st.booleans()))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, timeline: Timeline) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    write_trace(path, timeline)
    assert read_trace(path) == timeline


def test_both_ends_of_a_message_are_read(tmp_path: Path) -> None:
    edge = Edge("activation", A, B)
    timeline = Timeline([], {(edge, 0): 5, (edge, 1): 6}, {(edge, 1): 9, (edge, 2): 7})
    write_trace(tmp_path / "trace.json", timeline)
    read = read_trace(tmp_path / "trace.json")
    assert (read.departures, read.arrivals) == (timeline.departures, timeline.arrivals)


STAMP = {"stalegrid": FORMAT, "virtual": False}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"traceEvents": []}',
        '{"traceEvents": [], "metadata": {}}',
        '{"traceEvents": [], "metadata": []}',
        json.dumps({"traceEvents": [], "metadata": {"stalegrid": FORMAT + 1, "virtual": False}}),
        json.dumps({"metadata": STAMP}),
        json.dumps({"traceEvents": 7, "metadata": STAMP}),
        json.dumps({"traceEvents": [7], "metadata": STAMP}),
        json.dumps({"traceEvents": [{}], "metadata": STAMP}),
        json.dumps({"traceEvents": [{"ph": "b"}], "metadata": STAMP}),
        json.dumps({"traceEvents": [{"ph": "X", "cat": "lunch", "args": {"unit": [0, 0]}}], "metadata": STAMP}),
        json.dumps({"traceEvents": [{"ph": "X", "cat": "mix", "args": {"unit": [0]}}], "metadata": STAMP}),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"no trace that can be read \(trace: .*other\.json, .*record one with"):
        read_trace(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no trace that can be read \(trace: .*none\.json"):
        read_trace(tmp_path / "none.json")
