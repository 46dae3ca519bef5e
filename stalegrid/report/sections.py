"""What the report of a run says, part by part.

Does not know: files, how pictures are drawn, what a page looks like.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stalegrid.observe import (
    BYTES_SENT,
    JS_DISTANCE,
    PREFIX,
    TOLD,
    TOTAL,
    VIRTUAL,
    Record,
    Staleness,
    Summed,
    names,
    over_units,
    shares,
)
from stalegrid.report.dealt import dealt_section
from stalegrid.report.diagnosed import diagnosed_section
from stalegrid.report.figures import WIDTH, Curve, bars, curves, histogram
from stalegrid.report.gantt import gantt, steady
from stalegrid.report.page import either, facts, figures, page, section, table, text
from stalegrid.report.told import Team, Told

EPOCHS = ("epoch", "epochs")
CLOCK = (VIRTUAL, "virtual seconds")


def report(run: Told) -> str:
    """Return the page."""
    name = " on ".join(str(name) for path in ("method.name", "data.name") if (name := run.asked(path))) or "A run"
    parts = [
        text("h1", name),
        text("p", _subtitle(run)),
        facts(_headline(run)),
        section("Learning", [*figures(_learning(run, *EPOCHS)), *figures(_learning(run, *CLOCK))]),
        _staleness(run) if run.team is None else _served_staleness(run, run.team),
        section("Gap", figures(_gap(run)), _GAP),
        section("Consensus", figures(_consensus(run)), _CONSENSUS),
        diagnosed_section(run.diagnoses),
        section("Exchange", figures(_told(run)), _EXCHANGE),
        dealt_section(run.dealt, "group" if run.team is None else "learner"),
        section("Network", [*figures(_sent(run)), *_sent_table(run)], _SENT),
        _timeline(run),
        section("Configuration", [table(("setting", "value"), _settings(run.config))]),
    ]
    return page(f"{name}: report", (part for part in parts if part))


_GAP = (
    "How far the weights of a stage moved between the forward of a batch and the update that used it: L2 norm, mean "
    "over groups."
)
_EXCHANGE = "What the exchanges of groups have measured, as the mean over the groups of each stage."

_SENT = (
    "What units have sent each other, by kind of message: its content, without what a network wraps it in, and without "
    "what goes to the observer."
)
_CONSENSUS = (
    "How far groups are from their mean: the root of the mean squared L2 distance. Where it was measured, how far they "
    "are apart in what they predict: the root of the mean Jensen-Shannon divergence of their classes' probabilities on "
    "the test data, in natural units."
)


_SERVED_STALENESS = (
    "Share of the gradients by their staleness tau = i - j, in updates: computed at version j of the weights, taken at "
    "version i. With n-softsync it is about n on average, and rarely above 2n."
)


def _subtitle(run: Told) -> str:
    """Say what was trained how, and how much of it is done."""
    grid = f"{run.asked('grid.groups')} x {run.asked('grid.stages')} (groups x stages)"
    described = [grid if run.team is None else str(run.team)]
    told = (run.asked(path) for path in ("model.name", "engine.kind", "training.dtype", "training.precision"))
    described += [str(name) for name in told if name]
    described += ["channels last"] if run.asked("training.channels_last") else []
    described += ["compiled"] if run.asked("training.compile") else []
    if not run.train:
        return f"{', '.join(described)}. Nothing has been reported yet."
    last, name = run.train[-1], "updates" if run.asked("training.updates") else "epochs"
    done = last["update"] if name == "updates" else last["epoch"]
    asked = run.asked(f"training.{name}") or done
    finished = "" if done >= asked else " Not finished: this is what there is so far."
    if run.stopped:
        why = f" ({run.stopped['why']})" if run.stopped["why"] else ""
        finished = f" Stopped by {run.stopped['by']} at version {run.stopped['version']}{why}."
    return f"{', '.join(described)}. {_count(done)} of {_count(asked)} {name}.{finished}"


def _headline(run: Told) -> Iterator[tuple[str, str]]:
    newest: Record = {}
    # Whichever is newer has the last word on what both tell.
    for record in sorted((*run.train[-1:], *run.test[-1:]), key=lambda record: float(record["seconds"])):
        newest |= record
    forms: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("test_accuracy", "test accuracy", lambda value: f"{value:.2%}"),
        ("test_loss", "test loss", lambda value: f"{value:.4g}"),
        *((name, _metric(name), "{:.4g}".format) for name in _metrics(run)),
        ("loss", "training loss", lambda value: f"{value:.4g}"),
        ("update", "updates", lambda value: f"{value:,}"),
        ("seconds", "time", _duration),
        (VIRTUAL, "virtual time", _duration),
        ("samples_per_second", "samples/s", lambda value: f"{value:,.4g}"),
    )
    yield "method", str(run.asked("method.name"))
    yield from _who(run)
    yield from ((name, form(newest[key])) for key, name, form in forms if newest.get(key) is not None)


def _who(run: Told) -> Iterator[tuple[str, str]]:
    team = run.team
    if team is None:
        yield "groups x stages", f"{run.asked('grid.groups')} x {run.asked('grid.stages')}"
        return
    yield from (("learners", str(team.learners)), ("servers", str(team.servers)), ("n", str(team.splits)))
    if lost := [f"learner {number}" for record in run.train for number in record.get("lost", ())]:
        yield "lost", ", ".join(lost)


def _learning(run: Told, key: str, label: str) -> Iterator[tuple[str, str]]:
    for name, percent, lines in (
        ("Loss", False, (("training", run.train, "loss"), ("test", run.test, "test_loss"))),
        ("Accuracy", True, (("training", run.train, "train_accuracy"), ("test", run.test, "test_accuracy"))),
        *((_metric(name).capitalize(), False, (("test", run.test, name),)) for name in _metrics(run)),
    ):
        drawn = [Curve(line, points) for line, records, value in lines if (points := _points(records, key, value))]
        if drawn:
            title = f"{name} over {label}"
            yield title, curves(title, drawn, label, name.lower(), percent)


def _metrics(run: Told) -> list[str]:
    """Return what metrics of the user's are called in records."""
    usual = ("test_loss", "test_accuracy")
    return list(dict.fromkeys(n for record in run.test for n in record if n.startswith(PREFIX) and n not in usual))


def _metric(name: str) -> str:
    """Return what people call a metric."""
    return name.replace("_", " ")


def _staleness(run: Told) -> str:
    stages = _by_stage(run.train)
    most = max((len(summed.histogram) - 1 for summed in stages.values()), default=0)
    drawn = []
    for stage, summed in stages.items():
        mean = summed.record()["mean"]
        name = f"stage {stage}: mean {mean:.3g}"
        drawn.append((name, bars(f"Staleness of {name}", summed.histogram, most)))
    note = (
        "Share of the batches by their staleness: updates between the forward of a batch and the update that used it."
    )
    return section("Staleness", figures(drawn, small=True), note)


def _served_staleness(run: Told, team: Team) -> str:
    limit = 2 * team.splits
    staleness = Staleness(limit)
    for record in run.train:
        staleness.add(record["staleness"])
    told = staleness.record()
    if not told["staleness"]:
        return ""
    every = told["staleness_of_all"]
    above = f"{100 * every['above_limit']:.3g}% above 2n = {limit}"
    name = f"all learners: mean {every['mean']:.3g}, maximum {every['max']}, {above}"
    whole = histogram(f"Staleness of {name}", every["histogram"], ("2n", limit), "staleness", "gradients")
    drawn = []
    for one in told["staleness"]:
        title = f"learner {one['learner']}: mean {one['mean']:.3g}"
        drawn.append((title, bars(f"Staleness of {title}", one["histogram"], every["max"])))
    return section("Staleness", [*figures([(name, whole)]), *figures(drawn, small=True)], _SERVED_STALENESS)


def _gap(run: Told) -> Iterator[tuple[str, str]]:
    lines: dict[int, list[tuple[float, float]]] = {}
    for record in run.train:
        for stage, summed in _by_stage([record]).items():
            if summed.gaps:
                lines.setdefault(stage, []).append((record["epoch"], sum(summed.gaps) / len(summed.gaps)))
    if lines:
        drawn = [Curve(f"stage {stage}", points) for stage, points in lines.items()]
        yield "Gap over epochs", curves("Gap over epochs", drawn, "epochs", "gap")


def _consensus(run: Told) -> Iterator[tuple[str, str]]:
    points = _points(run.test, "epoch", "consensus_distance")
    if points and (run.asked("grid.groups") or 1) > 1:
        title = "Consensus distance over epochs"
        yield title, curves(title, [Curve("consensus distance", points)], "epochs", "consensus distance")
    if apart := _points(run.test, "epoch", JS_DISTANCE):
        title = "Jensen-Shannon distance over epochs"
        yield title, curves(title, [Curve("Jensen-Shannon distance", apart)], "epochs", "Jensen-Shannon distance")


def _sent(run: Told) -> Iterator[tuple[str, str]]:
    """Yield how many megabytes of which kind had been sent when."""
    lines = _lines(run)
    if lines:
        title = "Megabytes sent over epochs"
        yield title, curves(title, [Curve(name, points) for name, points in lines.items()], "epochs", "MB")


def _lines(run: Told) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in run.train:
        for name, nbytes in record.get(BYTES_SENT, {}).items():
            lines.setdefault(name, []).append((record["epoch"], nbytes / 1e6))
    if len(lines) == 2:
        del lines[TOTAL]  # of one kind, which it is
    return lines if any(nbytes for points in lines.values() for _, nbytes in points) else {}


def _sent_table(run: Told) -> list[str]:
    sent = {} if not run.train else run.train[-1].get(BYTES_SENT) or {}
    if not sent.get(TOTAL):
        return []
    rows = [(name, f"{nbytes:,}", f"{nbytes / run.train[-1]['update']:,.1f}") for name, nbytes in sent.items()]
    return [table(("messages", "bytes", "bytes an update"), rows, numbers=True)]


def _told(run: Told) -> Iterator[tuple[str, str]]:
    """Yield the numbers that exchanges have measured, as means over groups."""
    lines: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for record in run.train:
        told: Record = record.get(TOLD) or {}
        for stage in sorted(set(map(_stage, told))):
            own = {unit: numbers for unit, numbers in told.items() if _stage(unit) == stage}
            for name, value in over_units(own).items():
                lines.setdefault((name, stage), []).append((record["epoch"], value))
    for name in dict.fromkeys(name for name, _ in lines):
        drawn = [Curve(f"stage {stage}", points) for (other, stage), points in lines.items() if other == name]
        title = f"{_metric(name)} over epochs"
        yield title, curves(title, drawn, "epochs", _metric(name))


def _timeline(run: Told) -> str:
    timeline = run.timeline
    if timeline is None or not (found := shares(timeline)):
        return ""
    wide, narrow = steady(timeline), steady(timeline, rounds=2)
    kind = "virtual" if timeline.virtual else "real"
    left_out = f" The first {len(wide.units)} of {len(found)} units." if len(found) > len(wide.units) else ""
    pictures = either(
        gantt("Timeline of some rounds", timeline, wide), gantt("Timeline of two rounds", timeline, narrow, WIDTH)
    )
    named = names(s.unit for s in found)
    rows = [(named[s.unit], f"{s.busy:.1%}", f"{s.waiting:.1%}", f"{s.communicating:.1%}") for s in found]
    numbers = table(("unit", "busy", "waiting", "communicating"), rows, numbers=True)
    who = "unit (group, stage)" if run.team is None else "server and learner"
    note = (
        f"What every {who} did when, in the middle of the run, in {kind} time.{left_out} Below, how it "
        "spent the whole run: communicating is waiting for a message that is under way."
    )
    return section("Timeline", [pictures, numbers], note)


def _settings(config: Record) -> Iterator[tuple[str, str]]:
    for group, fields in config.items():
        yield from ((f"{group}.{name}", _shown(value)) for name, value in fields.items())


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _by_stage(records: Sequence[Record]) -> dict[int, Summed]:
    """Sum up the staleness of every stage over reports and groups."""
    found: dict[int, Summed] = {}
    for record in records:
        for unit, seen in record["staleness"].items():
            found.setdefault(_stage(unit), Summed()).add(seen)
    return found


def _stage(unit: str) -> int:
    return int(unit.strip("()").split(",")[1])


def _points(records: Sequence[Record], x: str, y: str) -> list[tuple[float, float]]:
    return [(r[x], r[y]) for r in records if r.get(x) is not None and r.get(y) is not None]


def _count(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
