"""Folders of runs made by hand, and pages read back."""

import json
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from stalegrid.cli import main
from stalegrid.observe.timeline import Span
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Unit
from stalegrid.report.marks import Verdict
from stalegrid.report.report import write_report
from stalegrid.report.told import Told, read_told

Record = dict[str, Any]
A, B = Unit(0, 0), Unit(0, 1)
CONFIG: Record = {
    "method": {"name": "pham-ahn", "staleness": [2, 0], "clip": None},
    "grid": {"groups": 1, "stages": 2, "cuts": ['<b>&"4"</b>']},
    "training": {"updates": None, "epochs": 2.0},
    "data": {"name": "digits"},
    "model": {"name": "mlp"},
}


def seen(histogram: list[int], gap: float | None) -> Record:
    return {"histogram": histogram, "gap": gap, "gap_max": gap, "held": 1}


def reported(update: int, epoch: float, loss: float, groups: int = 1, **more: Any) -> Record:
    staleness: Record = {}
    for s in range(groups):
        staleness |= {f"({s},0)": seen([1, 1, 2], 0.5 + s), f"({s},1)": seen([4, 0, 0], None)}
    record = {"kind": "train", "update": update, "epoch": epoch, "loss": loss, "train_accuracy": 0.5}
    return record | {"staleness": staleness, "seconds": 100.0 * epoch, "samples_per_second": 1234.5} | more


def evaluated(version: int, epoch: float, accuracy: float, **more: Any) -> Record:
    record = {"kind": "test", "version": version, "epoch": epoch, "consensus_distance": 0.25, "test_loss": 0.75}
    return record | {"test_accuracy": accuracy, "seconds": 100.0 * epoch + 1} | more


def diagnosed(version: int, **changes: Any) -> Record:
    """A diagnosis of two stages and one group."""
    stages = [{"error": 0.25 * k, "bound": None if k else 1.5, "rate_limit": None, "why": ""} for k in range(2)]
    noise = {"measured": 2.0, "predicted": 1.75, "bound": 3.5, "why": ""}
    record: Record = {"kind": "diagnosis", "version": version, "epoch": version / 5, "rate": 0.1, "rate_limit": 0.3}
    record |= {"gradient_square": 4.0, "gradient_square_average": 5.0, "noise": noise, "consensus": None}
    return record | {"stages": stages, "rate_limit_why": "", "seconds": 1.0} | changes


METRICS = [reported(5, 1.0, 2.0), evaluated(5, 1.0, 0.5), reported(10, 2.0, 1.5), evaluated(10, 2.0, 0.875)]


def folder_of(path: Path, config: Record = CONFIG, metrics: list[Record] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    lines = (json.dumps(record) + "\n" for record in (METRICS if metrics is None else metrics))
    (path / "metrics.jsonl").write_text("".join(lines))
    return path


SERVED: Record = {
    "method": {"name": "softsync"},
    "servers": {"learners": 3, "number": 2, "softsync": 1},
    "training": {"updates": None, "epochs": 2.0},
    "data": {"name": "digits"},
    "model": {"name": "mlp"},
}


def taken(update: int, epoch: float, lost: list[int], **histograms: list[int]) -> Record:
    """A report of servers; learners are named l0, l1, ..."""
    staleness = {f"({name[1:]},0)": {"histogram": counts, "gap": None} for name, counts in histograms.items()}
    return reported(update, epoch, 1.0) | {"staleness": staleness, "lost": lost}


TAKEN = [
    taken(5, 1.0, [], l0=[1, 1], l2=[0, 0, 1, 1], l10=[0, 4]),
    evaluated(5, 1.0, 0.5, consensus_distance=0.0),
    taken(10, 2.0, [], l0=[1, 1]),
    evaluated(10, 2.0, 0.875, consensus_distance=0.0),
]


class Page(HTMLParser):
    VOID = ("meta",)

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]

    @property
    def facts(self) -> dict[str, str]:
        return dict(zip(self.of("dt"), self.of("dd"), strict=True))


def page_of(folder: Path) -> Page:
    return Page(write_report(folder))


def span(unit: Unit, name: str, start: int, end: int) -> Span:
    return Span(unit, Kind(name[0]), int(name[1:]), start, end)


def trained(folder: Path, *arguments: str) -> Told:
    """Train the small model of the command line, and read what that leaves."""
    start = ["train", "--engine", "simulator", "--output.log-every", "5", "--output.loggers", ""]
    assert main([*start, *arguments, "--out", str(folder)]) == 0
    return read_told(folder)


def said(find: Callable[[Told], Iterator[Verdict]], run: Told) -> list[str]:
    """Return what is said of a run, each line behind its mark."""
    return [f"{verdict.mark.value}: {verdict.line}" for verdict in find(run)]
