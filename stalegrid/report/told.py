"""What the folder of a run tells, finished or not.

Does not know: what is made of it, whether the run still goes on.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from stalegrid.errors import DataError
from stalegrid.methods import SERVER_METHODS
from stalegrid.observe import (
    BEST,
    BYTES_SENT,
    CONFIG,
    DIAGNOSIS,
    INDEX,
    JS_DISTANCE,
    METRICS,
    MODEL,
    PREFIX,
    SUMMARY,
    TRACE,
    UNSAVED,
    UNSAVED_BEST,
    UNSAVED_INDEX,
    VERSION,
    VIRTUAL,
    Record,
    Timeline,
    read_trace,
)
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
        stopped: who asked for an early end, as the summary has it; empty for nobody.
        dealt: who has how many samples of which label, as the summary has it; empty where they are shared out.
        diagnoses: records of diagnoses.
    """

    config: Record
    train: list[Record]
    test: list[Record]
    timeline: Timeline | None = None
    stopped: Record = field(default_factory=dict)
    dealt: Record = field(default_factory=dict)
    diagnoses: list[Record] = field(default_factory=list)

    def asked(self, path: str) -> Any:
        """Return what the configuration says of an option; None where it says nothing.

        Args:
            path: such as ``grid.groups``.
        """
        group, _, field = path.partition(".")
        return self.config.get(group, {}).get(field)

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
    summary = read_summary(folder) if exists(folder / SUMMARY) else {}
    return Told(
        config,
        [record for record in records if record["kind"] == "train"],
        [record for record in records if record["kind"] == "test"],
        read_trace(trace) if exists(trace) else None,
        _stopped(summary) if summary else {},
        _dealt(summary, folder),
        [record for record in records if record["kind"] == DIAGNOSIS],
    )


def _stopped(summary: Record) -> Record:
    """Return who asked for the end that a run has come to; one that goes on has not come to it yet."""
    asked: Record = summary.get("stopped") or {}
    return {**asked, "version": summary["version"]} if asked else {}


def _dealt(summary: Record, folder: Path) -> Record:
    """Return who has which labels.

    Raises:
        DataError: it says of another number of labels.
    """
    dealt: Record = summary.get("dealt") or {}
    if dealt and {len(dealt["labels"])} != set(map(len, dealt["groups"])):
        raise DataError(f"the summary counts other labels than it names (file: {folder / SUMMARY}, dealt: {dealt})")
    return dealt


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
        DataError: it cannot be read, or is none.
    """
    summary: Record = read_json(folder / SUMMARY, _SUMMARY)
    return summary


def read_model(folder: Path, which: str = MODEL) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the mean model of a run: a state dict of the original model, and the tensors that it leaves out.

    Args:
        folder: of the run.
        which: of its models, by the name of the file.

    Raises:
        DataError: a file cannot be read, or holds something else.
    """
    if which == MODEL and not exists(folder / MODEL) and exists(folder / INDEX):
        return _of_parts(folder, INDEX), _of_parts(folder, UNSAVED_INDEX) if exists(folder / UNSAVED_INDEX) else {}
    rest = folder / {MODEL: UNSAVED, BEST: UNSAVED_BEST}[which]
    return _tensors(folder / which), _tensors(rest) if exists(rest) else {}


def interrupted_whole(folder: Path) -> bool:
    """Return whether a run that was interrupted left a summary and the mean model that it speaks of."""
    if not exists(folder / SUMMARY):
        return False
    if exists(folder / INDEX):
        return bool(read_json(folder / INDEX, _INDEX)["metadata"][VERSION] == str(read_summary(folder).get(VERSION)))
    if not exists(folder / MODEL):
        return False
    with safe_open(folder / MODEL, framework="pt") as file:
        # They are written one after the other.
        return bool((file.metadata() or {}).get(VERSION) == str(read_summary(folder).get(VERSION)))


def _of_parts(folder: Path, index: str) -> dict[str, Tensor]:
    """Read the tensors that an index names, a file at a time."""
    where: dict[str, str] = read_json(folder / index, _INDEX)["weight_map"]
    found = {name: _tensors(folder / Path(name).name) for name in sorted(set(where.values()))}
    return {key: found[name][key] for key, name in where.items()}


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as problem:
        raise DataError(f"the file holds no tensors that can be read (file: {path}): {problem}") from problem


_KIND = Kind("the name of a kind of messages", lambda name: isinstance(name, str))

_NAME = Kind("a text", lambda name: isinstance(name, str))

_INDEX: dict[Any, Any] = {"metadata": {VERSION: TEXT}, "weight_map": {_NAME: TEXT}}

_CONFIG: dict[Any, Any] = {
    Kind("the name of a group", lambda name: isinstance(name, str)): {},
    "method": {"name": TEXT},
    **dict.fromkeys(("data", "model", "optimizer"), Maybe({"name": Maybe(TEXT)})),
    "engine": Maybe({"kind": Maybe(TEXT)}),
    "grid": Maybe({"groups": Maybe(WHOLE), "stages": Maybe(WHOLE)}),
    "servers": Maybe(dict.fromkeys(("learners", "number", "softsync"), Maybe(WHOLE))),
    "training": Maybe(
        {
            "updates": Maybe(WHOLE),
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

_RECORDS = {
    DIAGNOSIS: {
        "version": COUNT,
        "epoch": NUMBER,
        **dict.fromkeys(("rate", "gradient_square", "gradient_square_average", "rate_limit"), Maybe(NUMBER)),
        "noise": dict.fromkeys(("measured", "predicted", "bound"), Maybe(NUMBER)),
        "consensus": Maybe(dict.fromkeys(("distance", "after_update", "bound"), Maybe(NUMBER))),
        "stages": [dict.fromkeys(("error", "bound", "rate_limit"), Maybe(NUMBER))],
    },
    "train": {
        "update": COUNT,
        "epoch": NUMBER,
        "seconds": NUMBER,
        **dict.fromkeys(("loss", "train_accuracy", "samples_per_second", VIRTUAL), Maybe(NUMBER)),
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
}
