"""Where observations go: files in the run's folder, TensorBoard, and several places at once.

Does not know: agents, engines.  Clocks are read here and in the console only.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor, nn

from stalegrid.files import open_new, replace, to_json, write_text, writing
from stalegrid.grid import Unit
from stalegrid.observe.records import Nowhere, Record, Sink
from stalegrid.observe.state import saved, unsaved

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
SUMMARY = "summary.json"
UNSAVED = "unsaved.safetensors"
UNITS = "units.safetensors"

VIRTUAL = "virtual_seconds"
"""The entry of records that were made in virtual time."""


class Rate:
    """Samples a second since the first report; before a second one, since the start.

    Args:
        start: of the clock, in seconds.
    """

    def __init__(self, start: float) -> None:
        self._since = start
        self._samples = 0
        self._first = True

    def after(self, samples: int, now: float) -> float:
        """Return the rate after so many more samples."""
        if self._first:
            rate = samples / (now - self._since)
            self._since, self._first = now, False
            return rate
        self._samples += samples
        return self._samples / (now - self._since)


@dataclass
class Summed:
    """The staleness of a stage over a run and over groups, or of a learner over a run.

    Attributes:
        histogram: batches used, by staleness in updates.
        gaps: mean gap of each report that has one, L2 norm of how far weights moved between forward and update.
        gap_max: the largest of all.
        held: most bytes held for batches in flight by one unit.
    """

    histogram: list[int] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    gap_max: float = 0.0
    held: int = 0

    def add(self, seen: Record) -> None:
        """Take in what a unit reported."""
        self.histogram = [a + b for a, b in zip_longest(self.histogram, seen["histogram"], fillvalue=0)]
        self.held = max(self.held, seen.get("held") or 0)
        if seen.get("gap") is not None:
            self.gaps.append(seen["gap"])
            self.gap_max = max(self.gap_max, seen.get("gap_max") or 0.0)

    def record(self) -> Record:
        """Return the sums as a summary has them."""
        batches = sum(self.histogram)
        return {
            "mean": sum(tau * count for tau, count in enumerate(self.histogram)) / batches,
            "max": max(tau for tau, count in enumerate(self.histogram) if count),
            "histogram": self.histogram,
            "gap": sum(self.gaps) / len(self.gaps) if self.gaps else None,
            "gap_max": self.gap_max if self.gaps else None,
            "held": self.held,
        }


class Staleness:
    """The staleness of a run by stage, or by learner.

    Args:
        limit: for learners, staleness above which the share of gradients is told; None for stages.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._summed: dict[int, Summed] = {}

    def add(self, seen: Mapping[str, Record]) -> None:
        """Take in what units reported."""
        for unit, record in seen.items():
            group, stage = map(int, unit.strip("()").split(","))
            self._summed.setdefault(stage if self._limit is None else group, Summed()).add(record)

    def record(self) -> Record:
        """Return what a summary says."""
        if self._limit is None:
            return {"staleness": [{"stage": stage, **total.record()} for stage, total in sorted(self._summed.items())]}
        if not self._summed:
            return {"staleness": []}
        whole = Summed()
        for total in self._summed.values():
            whole.add({"histogram": total.histogram, "gap": None})
        return {
            "staleness": [{"learner": number, **self._told(total)} for number, total in sorted(self._summed.items())],
            "staleness_of_all": self._told(whole),
        }

    def _told(self, total: Summed) -> Record:
        assert self._limit is not None
        above = sum(total.histogram[self._limit + 1 :]) / sum(total.histogram)
        record = {key: value for key, value in total.record().items() if key in ("mean", "max", "histogram")}
        return {**record, "limit": self._limit, "above_limit": above}


class Folder:
    """Writes metrics, line by line, and at every evaluation the model and a summary, each whole at any moment.

    Samples per second leave out the time to the first report, in which processes start and libraries load.

    Args:
        folder: exists and is this run's; holds metrics from now on, of which the first says that the run has started.
        facts: what the summary says besides what is measured.
        keep_units: also write the parameters of every unit at the last snapshot.
        limit: see :class:`Staleness`.

    Raises:
        OutputError: by every method too, a file cannot be written; what was written before stays.
    """

    def __init__(self, folder: Path, facts: Record, keep_units: bool = False, limit: int | None = None) -> None:
        self._folder = folder
        self._metrics = open_new(folder / METRICS)
        self._facts = facts
        self._keep_units = keep_units
        self._start = time.perf_counter()
        self._rate = Rate(self._start)
        self._staleness = Staleness(limit)
        self._last: Record = {}
        self._lost: list[int] = []

    def report(self, record: Record) -> None:
        """Append a line to the metrics."""
        now = time.perf_counter()
        rates = {"seconds": now - self._start, "samples_per_second": self._rate.after(record["samples"], now)}
        self._staleness.add(record["staleness"])
        self._last = {"updates": record["update"], "train_loss": record["loss"], **rates}
        if "lost" in record:
            self._lost += record["lost"]
            self._last["lost_learners"] = self._lost
        self._append({"kind": "train", **record, **rates})

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Append a line to the metrics; write the model and the summary of the run so far."""
        self._append({"kind": "test", **record, "seconds": time.perf_counter() - self._start})
        replace(self._folder / MODEL, lambda part: save_file(saved(model), part))
        if rest := unsaved(model):
            replace(self._folder / UNSAVED, lambda part: save_file(rest, part))
        summary = {
            **self._facts,
            **self._last,
            **record,
            "updates": record["version"],
            **self._staleness.record(),
        }
        summary.setdefault("test_accuracy", None)
        summary.setdefault("test_loss", None)
        write_text(self._folder / SUMMARY, to_json(summary, indent=2) + "\n")

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Write every unit's vector, if asked to."""
        if self._keep_units:
            named = {str(unit): vector.cpu() for unit, vector in vectors.items()}
            replace(self._folder / UNITS, lambda part: save_file(named, part))

    def close(self) -> None:
        """Keep what is written, which is whole at any moment."""
        with writing(self._folder / METRICS):
            self._metrics.close()

    def _append(self, record: Record) -> None:
        with writing(self._folder / METRICS):
            self._metrics.write(to_json(record) + "\n")


class TensorBoard:
    """Writes loss, accuracy, learning rate, staleness, gap, memory held and consensus distance for TensorBoard.

    Args:
        folder: for the event files.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def report(self, record: Record) -> None:
        """Write the scalars of a report."""
        scalars = {
            "train/loss": record["loss"],
            "train/accuracy": record["train_accuracy"],
            "train/lr": record["lr"],
        }
        for unit, seen in record["staleness"].items():
            scalars |= {f"staleness/{unit}": seen["mean"], f"gap/{unit}": seen["gap"], f"held/{unit}": seen.get("held")}
            self._draw(f"staleness by batch/{unit}", seen["histogram"], record["update"])
        self._write(scalars, record["update"])

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Write the scalars of an evaluation."""
        names = ("test_loss", "test_accuracy", "consensus_distance")
        self._write({f"test/{name}": record.get(name) for name in names}, record["version"])
        self._writer.flush()

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Close the files."""
        self._writer.close()

    def _draw(self, name: str, histogram: Sequence[int], step: int) -> None:
        values = [tau for tau, count in enumerate(histogram) for _ in range(count)]
        self._writer.add_histogram(name, np.array(values), step, bins=np.arange(len(histogram) + 1) - 0.5)

    def _write(self, scalars: Mapping[str, float | None], step: int) -> None:
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)


class Dated:
    """Adds the time on a clock to every observation.

    Args:
        sink: where they go.
        seconds: reads the clock.
    """

    def __init__(self, sink: Sink, seconds: Callable[[], float]) -> None:
        self._sink = sink
        self._seconds = seconds

    def report(self, record: Record) -> None:
        """Pass it on with its date."""
        self._sink.report({**record, VIRTUAL: self._seconds()})

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Pass it on with its date."""
        self._sink.evaluation({**record, VIRTUAL: self._seconds()}, model)

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Pass it on."""
        self._sink.units(vectors)

    def close(self) -> None:
        """Pass it on."""
        self._sink.close()


class Dispensable:
    """A place that training can do without: its first error is told, and it is left out from then on.

    Args:
        name: of the place.
        make: makes it.
        say: takes what is told.
    """

    def __init__(self, name: str, make: Callable[[], Sink], say: Callable[[str], object]) -> None:
        self._name = name
        self._say = say
        self._sink: Sink = Nowhere()
        self._try(lambda: setattr(self, "_sink", make()))

    def report(self, record: Record) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.report(record))

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.evaluation(record, model))

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.units(vectors))

    def close(self) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.close())

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as problem:  # whatever it is, training is worth more
            self._sink = Nowhere()
            self._say(f"training goes on without {self._name}: {type(problem).__name__}: {problem}")


class Several:
    """Hands every observation to several sinks, in order.

    Args:
        sinks: which.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def report(self, record: Record) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.report(record)

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.evaluation(record, model)

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.units(vectors)

    def close(self) -> None:
        """Close them all, whichever of them fails."""
        with ExitStack() as closing:
            for sink in reversed(self._sinks):
                closing.callback(sink.close)
