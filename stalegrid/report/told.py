"""What the folder of a run tells, finished or not.

Does not know: what is made of it, whether the run still goes on.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stalegrid.errors import DataError
from stalegrid.methods import SERVER_METHODS
from stalegrid.observe import (
    BYTES_SENT,
    CONFIG,
    DIAGNOSIS,
    FAILURE,
    JS_DISTANCE,
    LIMITS,
    METRICS,
    PREFIX,
    SUMMARY,
    TRACE,
    VIRTUAL,
    Record,
    Timeline,
    read_trace,
)
from stalegrid.report.models import norm_of
from stalegrid.written import (
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    WHOLE,
    Kind,
    Maybe,
    checked,
    exists,
    read_json,
    read_lines,
    read_yaml,
)


@dataclass(frozen=True)
class Team:
    """Who trains where learners do, with parameter servers.

    Args:
        learners: lambda.
        servers: over which the parameters are split.
        splits: n.
    """

    learners: int
    servers: int
    splits: int

    def __str__(self) -> str:
        several = "s" if self.learners > 1 else "", "s" if self.servers > 1 else ""
        return f"{self.learners} learner{several[0]}, {self.servers} server{several[1]}, n = {self.splits}"


@dataclass(frozen=True)
class Told:
    """What the folder of a run tells.

    Attributes:
        config: the settled configuration.
        train: records of reports.
        test: records of evaluations.
        timeline: None if there is no trace.
        summary: as of the last evaluation; empty before the first.
        limits: which rates its stages bear, as it was measured; empty where it was not.
        failure: by which error it ended, and what that said; empty where none is noted.
        norm: of the mean model, where there are several groups; None where that is not there.
        diagnoses: records of diagnoses.
    """

    config: Record
    train: list[Record]
    test: list[Record]
    timeline: Timeline | None = None
    summary: Record = field(default_factory=dict)
    limits: Record = field(default_factory=dict)
    failure: Record = field(default_factory=dict)
    norm: float | None = None
    diagnoses: list[Record] = field(default_factory=list)

    def asked(self, path: str) -> Any:
        """Return what the configuration says of an option; None where it says nothing.

        Args:
            path: such as ``grid.groups``.
        """
        group, _, field = path.partition(".")
        return self.config.get(group, {}).get(field)

    @property
    def stopped(self) -> Record:
        """Who asked for the end that the run has come to; empty for nobody."""
        asked: Record = self.summary.get("stopped") or {}
        return {**asked, "version": self.summary["version"]} if asked else {}

    @property
    def done(self) -> tuple[str, float, float]:
        """What is counted, updates or epochs; how many are done, and how many were asked for."""
        last, name = self.train[-1], "updates" if self.asked("training.updates") else "epochs"
        done: float = last["update"] if name == "updates" else last["epoch"]
        return name, done, self.asked(f"training.{name}") or done

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        _, done, asked = self.done
        until = self.asked("training.until")
        return done >= asked or (until is not None and self.train[-1]["update"] >= until)

    @property
    def timed(self) -> bool:
        """Whether its trace says who waits for whom: one process that takes turns in real time does not."""
        virtual = self.timeline is not None and self.timeline.virtual
        return virtual or self.asked("engine.kind") != "simulator"

    @property
    def team(self) -> Team | None:
        """Learners and servers; None of a grid."""
        learners = self.asked("servers.learners")
        if learners is None:
            return None
        usual = next((m.splits for m in SERVER_METHODS if m.name == self.asked("method.name")), 1)
        return Team(learners, self.asked("servers.number") or 1, self.asked("servers.softsync") or usual or learners)


def read_told(folder: Path) -> Told:
    """Read the folder of a run.

    Raises:
        DataError: it is of no run, or a file in it cannot be read.
    """
    config = read_config(folder)
    records = read_metrics(folder)
    trace = folder / TRACE
    return Told(
        config,
        [record for record in records if record["kind"] == "train"],
        [record for record in records if record["kind"] == "test"],
        timeline=read_trace(trace) if exists(trace) else None,
        summary=read_summary(folder) if exists(folder / SUMMARY) else {},
        limits=read_json(folder / LIMITS, _LIMITS) if exists(folder / LIMITS) else {},
        failure=read_json(folder / FAILURE, _FAILURE) if exists(folder / FAILURE) else {},
        norm=norm_of(folder) if (config.get("grid", {}).get("groups") or 1) > 1 else None,
        diagnoses=[record for record in records if record["kind"] == DIAGNOSIS],
    )


def read_config(folder: Path) -> Record:
    """Read the settled configuration of a run.

    Raises:
        DataError: the folder is of no run.
    """
    try:
        config: Record = checked(read_yaml(folder / CONFIG), _CONFIG, folder / CONFIG)
    except DataError as problem:
        raise DataError(
            f"this is not the folder of a run (folder: {folder}): {problem}; name one that --out made"
        ) from problem
    return config


def read_metrics(folder: Path) -> list[Record]:
    """Read the records of a run so far.

    Raises:
        DataError: a record is damaged.
    """
    path = folder / METRICS
    records = read_lines(path, {"kind": TEXT}) if exists(path) else []
    for number, record in enumerate(records, start=1):
        measured = {name: Maybe(NUMBER) for name in record if name.startswith(PREFIX)}
        checked(record, measured | _RECORDS.get(record["kind"], {}), path, f"line {number}")
    return records


def read_summary(folder: Path) -> Record:
    """Read the summary of a run.

    Raises:
        DataError: it cannot be read, is none, or counts other labels than it names.
    """
    summary: Record = read_json(folder / SUMMARY, _SUMMARY)
    dealt = summary.get("dealt")
    if dealt and {len(dealt["labels"])} != set(map(len, dealt["groups"])):
        raise DataError(f"the summary counts other labels than it names (file: {folder / SUMMARY}, dealt: {dealt})")
    return summary


_KIND = Kind("the name of a kind of messages", lambda name: isinstance(name, str))

_NAME = Kind("a text", lambda name: isinstance(name, str))

_CONFIG: dict[Any, Any] = {
    Kind("the name of a group", lambda name: isinstance(name, str)): {},
    "method": {"name": TEXT},
    **dict.fromkeys(("data", "model", "optimizer"), Maybe({"name": Maybe(TEXT)})),
    "engine": Maybe({"kind": Maybe(TEXT)}),
    "grid": Maybe({"groups": Maybe(WHOLE), "stages": Maybe(WHOLE)}),
    "mixing": Maybe({"kind": Maybe(TEXT)}),
    "servers": Maybe(dict.fromkeys(("learners", "number", "softsync", "max_staleness"), Maybe(WHOLE))),
    "training": Maybe(
        {
            "updates": Maybe(WHOLE),
            "until": Maybe(WHOLE),
            "epochs": Maybe(NUMBER),
            **dict.fromkeys(("dtype", "precision"), Maybe(TEXT)),
            **dict.fromkeys(("channels_last", "compile"), Maybe(FLAG)),
        }
    ),
}

_UNIT = Kind("the name of a unit", lambda name: bool(re.fullmatch(r"\(\d{1,9},\d{1,9}\)", str(name))))

_HISTOGRAM = Kind(
    "a list of counts that are not all 0",
    lambda value: isinstance(value, list) and all(COUNT.test(count) for count in value) and any(value),
)

_WHY = {"why": Maybe(TEXT)}

_RECORDS = {
    DIAGNOSIS: {
        "version": COUNT,
        "epoch": NUMBER,
        **dict.fromkeys(("rate", "gradient_square", "gradient_square_average", "rate_limit"), Maybe(NUMBER)),
        "rate_limit_why": Maybe(TEXT),
        "noise": dict.fromkeys(("measured", "predicted", "bound"), Maybe(NUMBER)) | _WHY,
        "consensus": Maybe(dict.fromkeys(("distance", "after_update", "bound"), Maybe(NUMBER)) | _WHY),
        "stages": [dict.fromkeys(("error", "bound", "rate_limit"), Maybe(NUMBER)) | _WHY],
    },
    "train": {
        "update": COUNT,
        "epoch": NUMBER,
        "seconds": NUMBER,
        **dict.fromkeys(("loss", "train_accuracy", "lr", "samples_per_second", VIRTUAL), Maybe(NUMBER)),
        "lost": Maybe([COUNT]),
        BYTES_SENT: Maybe({_KIND: COUNT}),
        "staleness": {
            _UNIT: {
                "histogram": _HISTOGRAM,
                "gap": Maybe(NUMBER),
                "gap_max": Maybe(NUMBER),
                "held": Maybe(NUMBER),
            }
        },
        "told": Maybe({_UNIT: {_NAME: Maybe(NUMBER)}}),
    },
    "test": {
        "epoch": NUMBER,
        "seconds": NUMBER,
        **dict.fromkeys(("test_loss", "test_accuracy", "consensus_distance", JS_DISTANCE, VIRTUAL), Maybe(NUMBER)),
        BYTES_SENT: Maybe({_KIND: COUNT}),
    },
}

_SUMMARY = {
    "version": COUNT,
    "updates": COUNT,
    **dict.fromkeys(("test_loss", "test_accuracy", "train_loss", "samples_per_second"), Maybe(NUMBER)),
    "staleness": [dict.fromkeys(("max", "gap", "held"), Maybe(NUMBER))],
    "dealt": Maybe({"labels": [WHOLE], "groups": [_HISTOGRAM]}),
    "stopped": Maybe({"by": TEXT, "asked_at": COUNT, "why": TEXT}),
    "staleness_at_most": Maybe([COUNT]),
    "bytes_per_update": Maybe({_KIND: NUMBER}),
    "lost_groups": Maybe([{"group": COUNT, "version": COUNT, "why": TEXT}]),
    "returned_groups": Maybe([{"group": COUNT, "version": COUNT, "donor": COUNT}]),
}

_LIMITS = {
    "peak": NUMBER,
    "each": [{"stage": Maybe(COUNT), "staleness": COUNT, "rate": Maybe(NUMBER), "why": TEXT}],
}

_FAILURE = {"by": TEXT, "why": TEXT}
