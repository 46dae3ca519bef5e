"""What the folder of a run tells, finished or not.

Does not know: what is made of it, whether the run still goes on.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from stalegrid.errors import ConfigError
from stalegrid.methods import find_served
from stalegrid.observe.records import Record
from stalegrid.observe.sinks import CONFIG, METRICS
from stalegrid.observe.timeline import Timeline
from stalegrid.observe.trace import TRACE, read_trace


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
    """

    config: Record
    train: list[Record]
    test: list[Record]
    timeline: Timeline | None = None

    @property
    def team(self) -> Team | None:
        """Learners and servers; None of a grid."""
        method = find_served(str(self.config.get("method")))
        if method is None:
            return None
        learners, servers, chosen = (self.config[name] for name in ("learners", "servers", "softsync"))
        return Team(learners, servers, chosen or method.splits or learners)


def read_told(folder: Path) -> Told:
    """Read the folder of a run.

    Raises:
        ConfigError: it is of no run, or a file in it cannot be read.
    """
    config = read_config(folder)
    records = _records(folder / METRICS)
    trace = folder / TRACE
    return Told(
        config,
        [record for record in records if record.get("kind") == "train"],
        [record for record in records if record.get("kind") == "test"],
        read_trace(trace) if trace.exists() else None,
    )


def read_config(folder: Path) -> Record:
    """Read the settled configuration of a run.

    Raises:
        ConfigError: the folder is of no run.
    """
    try:
        config = yaml.safe_load((folder / CONFIG).read_text())
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise ConfigError(
            f"this is not the folder of a run (folder: {folder}, {CONFIG}: {problem}); name one that --out made"
        ) from problem
    if not isinstance(config, dict):
        raise ConfigError(f"this is not the folder of a run (folder: {folder}, {CONFIG}: {config!r})")
    return config


def _records(path: Path) -> list[Record]:
    """Read the metrics; the last line may be cut off, by a run that goes on or was killed."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as problem:
            if number < len(lines):
                raise ConfigError(f"line {number} is damaged (metrics: {path}): {problem}; remove it") from problem
    return records
