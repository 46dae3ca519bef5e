"""A timeline as a file that ui.perfetto.dev shows: the Trace Event Format of Chrome.

Does not know: who recorded it, what its times are spent on.

What is stored is in the ``args`` of events, in whole nanoseconds; all else is drawing: a process a group, a thread a
unit, messages beside them, arrows from the forward of a batch to the update of its unit that used it.  Learners have a
process each, servers share one; no arrow leads from one to the other, as nothing stored says whose gradient was taken.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stalegrid.errors import DataError
from stalegrid.observe.naming import is_server, names
from stalegrid.observe.sharing import by_unit, gaps
from stalegrid.observe.timeline import Span, Timeline
from stalegrid.programs import END, OBSERVER, Edge, Kind, Unit
from stalegrid.written import COUNT, FLAG, TEXT, WHOLE, Maybe, checked, read_json, to_json, whole, write_text
from stalegrid.written import Kind as _Kind

TRACE = "trace.json"
"""The file in the folder of a run, as far as it went before it was interrupted."""

FORMAT = 1
"""Version of what is stored; another one is refused."""

SHORT = 1_000
"""Nanoseconds; shorter gaps between the actions of a unit are not shown as waiting."""

Event = dict[str, Any]


def name_of_trace(since: int) -> str:
    """Return the name of the file for a run that goes on from a version, 0 for its beginning; each part has its own."""
    return f"trace-from-{since}.json" if since else TRACE


def write_trace(path: Path, timeline: Timeline) -> None:
    """Write a timeline.

    Args:
        path: file to write.
        timeline: what was executed when.
    """
    events = _Events(timeline)
    content = {
        "metadata": {"stalegrid": FORMAT, "virtual": timeline.virtual},
        "traceEvents": [*events.names(), *events.actions(), *events.waits(), *events.messages()],
    }
    write_text(path, to_json(content, separators=(",", ":")))


def read_trace(path: Path) -> Timeline:
    """Read a timeline that :func:`write_trace` wrote, exactly.

    Raises:
        DataError: the file cannot be read, or is something else.
    """
    try:
        return _read(path)
    except DataError as problem:
        raise DataError(
            f"this is no trace that can be read (trace: {path}, {problem}); record one with --output.trace"
        ) from problem


def _read(path: Path) -> Timeline:
    content = read_json(path, {"metadata": {"stalegrid": _FORMATTED, "virtual": FLAG}, "traceEvents": [{"ph": TEXT}]})
    timeline = Timeline(virtual=content["metadata"]["virtual"])
    for i, event in enumerate(content["traceEvents"]):
        where = f"traceEvents[{i}]"
        if event["ph"] == "X" and event.get("args"):
            checked(event, {"cat": _CATEGORY, "args": _SPAN}, path, where)
            stored = event["args"]
            kind = Kind[event["cat"].upper()]
            timeline.spans.append(Span(Unit(*stored["unit"]), kind, stored["index"], stored["start"], stored["end"]))
        elif event["ph"] == "b":
            stored = checked(event, {"args": _FLIGHT}, path, where)["args"]
            edge = Edge(stored["edge"], Unit(*stored["source"]), Unit(*stored["target"]))
            for times, name in ((timeline.departures, "left"), (timeline.arrivals, "arrived")):
                if stored.get(name) is not None:
                    times[edge, stored["index"]] = stored[name]
    return timeline


_FORMATTED = _Kind(f"{FORMAT}, the format that --output.trace records", lambda found: found == FORMAT)

_UNIT = _Kind("a unit", lambda value: isinstance(value, list) and len(value) == 2 and all(map(whole, value)))
_CATEGORY = _Kind("a kind of action", lambda value: str(value).upper() in Kind.__members__)
_SPAN = {"unit": _UNIT, "index": WHOLE, "start": COUNT, "end": COUNT}
_FLIGHT = {
    "edge": TEXT,
    "source": _UNIT,
    "target": _UNIT,
    "index": WHOLE,
    "left": Maybe(COUNT),
    "arrived": Maybe(COUNT),
}


class _Events:
    """A timeline in the Trace Event Format.

    Args:
        timeline: which.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._by_unit = by_unit(timeline)
        self._flights = {key: _drawn(timeline, key) for key in timeline.departures | timeline.arrivals}
        units = {*self._by_unit, *(edge.source for edge, _ in self._flights)}
        self._names = names({*units, *(edge.target for edge, _ in self._flights)})
        self._units = sorted(units, key=lambda unit: (unit == OBSERVER, unit))  # the observer comes last
        self._homes = {unit: _home(unit, self._names[unit]) for unit in self._units}
        # No number is 0, and none means both a process and a thread: viewers treat a thread with the number of its
        # process as the main one.
        processes = {process: i for i, process in enumerate(dict.fromkeys(p for p, _ in self._homes.values()), start=1)}
        self._processes = {unit: processes[process] for unit, (process, _) in self._homes.items()}
        self._threads = {unit: i for i, unit in enumerate(self._units, start=len(processes) + 1)}

    def names(self) -> Iterator[Event]:
        """Yield names and places of processes and threads."""
        for unit in self._units:
            process, name = self._homes[unit]
            for event, args in (
                ("process_name", {"name": process}),
                ("process_sort_index", {"sort_index": self._processes[unit]}),
                ("thread_name", {"name": name}),
                ("thread_sort_index", {"sort_index": self._threads[unit]}),
            ):
                yield self._event(unit, "M", event, "__metadata", 0) | {"args": args}

    def actions(self) -> Iterator[Event]:
        """Yield what was executed, each followed by the arrows that begin or end there."""
        arrows: dict[Span, list[Event]] = {}
        for i, (forward, update) in enumerate(self._uses(), start=1):
            name = f"batch {forward.index}"
            begin = self._event(forward.unit, "s", name, "batch", forward.start)
            end = self._event(update.unit, "f", name, "batch", update.start)
            arrows.setdefault(forward, []).append(begin | {"id": i})
            # bp e: the arrow ends at the action that encloses this time, not at the next one.
            arrows.setdefault(update, []).append(end | {"id": i, "bp": "e"})
        for span in self._timeline.spans:
            name = f"{span.kind.value}{span.index}"
            event = self._lasting(span.unit, name, span.kind.name.lower(), span.start, span.end)
            yield event | {"args": {"unit": span.unit, "index": span.index, "start": span.start, "end": span.end}}
            # Viewers bind an arrow to the action that began last, in the order of the file where times are equal.
            yield from arrows.get(span, ())

    def waits(self) -> Iterator[Event]:
        """Yield the gaps between actions."""
        for unit, spans in self._by_unit.items():
            for gap in gaps(spans):
                if gap.end - gap.start >= SHORT:
                    yield self._lasting(unit, "wait", "wait", gap.start, gap.end)

    def messages(self) -> Iterator[Event]:
        """Yield what was sent, on as many lanes a sender as messages were under way at once."""
        lanes: dict[Unit, list[int]] = {}
        for (edge, index), (left, arrived) in sorted(self._flights.items(), key=lambda flight: flight[1]):
            unit = edge.source
            ends = lanes.setdefault(unit, [])
            lane = next((i for i, end in enumerate(ends) if end <= left), len(ends))
            # Local: viewers then draw it beside the process of the sender.
            identity = {"id2": {"local": f"{unit} {lane}"}}
            if lane == len(ends):
                ends.append(arrived)
                # A viewer names a track after the first event on it.
                yield self._event(unit, "n", f"sends of {self._names[unit]}", "message", left) | identity
            ends[lane] = arrived
            number = "end" if index == END else f"#{index}"
            name = f"{edge.name} {number} to {self._names[edge.target]}"
            stored = {"args": self._stored(edge, index)}
            yield self._event(unit, "b", name, "message", left) | identity | stored
            yield self._event(unit, "e", name, "message", arrived) | identity

    def _stored(self, edge: Edge, index: int) -> Event:
        return {
            "edge": edge.name,
            "source": edge.source,
            "target": edge.target,
            "index": index,
            "left": self._timeline.departures.get((edge, index)),
            "arrived": self._timeline.arrivals.get((edge, index)),
        }

    def _uses(self) -> Iterator[tuple[Span, Span]]:
        """Yield the forward of every batch with the update that used it."""
        for spans in self._by_unit.values():
            forwards: dict[int, Span] = {}
            backwards: list[int] = []
            for span in spans:
                if span.kind is Kind.FORWARD:
                    forwards[span.index] = span
                elif span.kind is Kind.BACKWARD:
                    backwards.append(span.index)
                elif span.kind is Kind.UPDATE:
                    yield from ((forwards[batch], span) for batch in backwards if batch in forwards)
                    backwards = []

    def _event(self, unit: Unit, phase: str, name: str, category: str, time: int) -> Event:
        place = {"pid": self._processes[unit], "tid": self._threads[unit]}
        # The format counts in microseconds.
        return {"ph": phase, "name": name, "cat": category, "ts": time / 1000, **place}

    def _lasting(self, unit: Unit, name: str, category: str, start: int, end: int) -> Event:
        return self._event(unit, "X", name, category, start) | {"dur": (end - start) / 1000}


def _home(unit: Unit, name: str) -> tuple[str, str]:
    """Return what the process and the thread of a unit are called."""
    if is_server(unit):
        return "servers", name
    in_grid = unit.group >= 0 and name == str(unit)  # others have a process for themselves
    return (f"group {unit.group}", f"unit {name}") if in_grid else (name, name)


def _drawn(timeline: Timeline, key: tuple[Edge, int]) -> tuple[int, int]:
    """Return when a message is shown: never backwards, though clocks of hosts may differ."""
    left, arrived = timeline.departures.get(key), timeline.arrivals.get(key)
    ends = [time for time in (left, arrived) if time is not None]
    return ends[0], max(ends)
