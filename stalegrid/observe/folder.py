"""What a run leaves: its records in loggers, metrics line by line first, and the model and a summary so far.

Does not know: agents, engines, who else is told.  Clocks are read here and in the console only.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from stalegrid.objects import State
from stalegrid.observe.best import Best
from stalegrid.observe.diagnosed import DIAGNOSIS
from stalegrid.observe.jsonl import Jsonl
from stalegrid.observe.loggers import Logger
from stalegrid.observe.numbers import Numbers
from stalegrid.observe.parts import Saved, forget_parts, indices
from stalegrid.observe.rate import Rate
from stalegrid.observe.records import Record
from stalegrid.observe.state import saved, unsaved
from stalegrid.observe.summed import Staleness
from stalegrid.programs import Unit
from stalegrid.written import replace, replace_all, to_json

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
BEST = "model-best.safetensors"
SUMMARY = "summary.json"
LIMITS = "limits.json"
FAILURE = "failure.json"
UNSAVED = "unsaved.safetensors"
UNSAVED_BEST = "unsaved-best.safetensors"
UNITS = "units.safetensors"
VERSION = "version"

Writers = dict[str, Callable[[Path], object]]


class Folder:
    """Writes metrics, line by line, and at every evaluation the model and a summary, which change as one.

    Samples per second leave out the time to the first report, in which processes start and libraries load.

    Args:
        folder: exists and is this run's; holds metrics from now on, of which the first says that the run has started.
        facts: what the summary says besides what is measured.
        keep_units: also write the parameters of every unit at the last snapshot.
        limit: see :class:`Staleness`.
        best: by which number of an evaluation the best model is kept too; None for none.
        loggers: that are given every record, beside the metrics; started already.
        again: whether the folder is that of a run that goes on, and holds metrics of it.
        parts: what of the model each stage has saved before it is told of; none where the model is told as a whole.

    Attributes:
        summary: of the run so far, as it was written last.
        stopped: who asked for an early end, as the next summary says; empty for nobody.

    Raises:
        OutputError: by every method too, a file cannot be written; what was written before stays.
    """

    def __init__(
        self,
        folder: Path,
        facts: Record,
        keep_units: bool = False,
        limit: int | None = None,
        best: str | None = None,
        loggers: Sequence[Logger] = (),
        *,
        again: bool = False,
        parts: Sequence[Saved] = (),
    ) -> None:
        self._parts = parts
        self._folder = folder
        self._metrics = Jsonl(folder / METRICS, again=again)
        self._loggers = [self._metrics, *loggers]
        self._facts = facts
        self._keep_units = keep_units
        self._start = time.perf_counter()
        self._rate = Rate(self._start)
        self._staleness = Staleness(limit)
        self._numbers = Numbers()
        self._last: Record = {}
        self._diagnosis: Record = {}
        self._lost: list[int] = []
        self.summary: Record = {}
        self.stopped: Callable[[], Record] = dict
        self._best = None if best is None else Best(best)

    def report(self, record: Record) -> None:
        """Append a line to the metrics."""
        now = time.perf_counter()
        rates = {"seconds": now - self._start, "samples_per_second": self._rate.after(record["samples"], now)}
        self._note({**record, **rates})
        self._log({"kind": "train", **record, **rates})

    def _note(self, record: Record) -> None:
        """Take into the summary what a report says."""
        self._staleness.add(record["staleness"])
        self._numbers.add(record)
        self._last = {
            "updates": record["update"],
            "train_loss": record["loss"],
            "seconds": record["seconds"],
            "samples_per_second": record["samples_per_second"],
        }
        if "lost" in record:
            self._lost += record["lost"]
            self._last["lost_learners"] = self._lost

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Append a line to the metrics; write the model and the summary of the run so far."""
        # First the line: should a file below not find room, the measurement is not lost.
        self._log({"kind": "test", **record, "seconds": time.perf_counter() - self._start})
        files = self._model(model, record, MODEL, UNSAVED)
        if self._best is not None and self._best.takes(record):
            files |= self._model(model, record, BEST, UNSAVED_BEST)
        summary = self._summary(record)
        files[SUMMARY] = partial(_write_text, to_json(summary, indent=2) + "\n")
        replace_all(self._folder, files)
        self.summary = summary
        if self._parts:
            forget_parts(self._folder, record[VERSION])

    def _summary(self, record: Record) -> Record:
        """Return the summary of the run up to an evaluation."""
        summary = {
            **self._facts,
            **self._last,
            **record,
            "updates": record["version"],
            **self._staleness.record(),
            **self._numbers.record(),
            **self._diagnosis,
        }
        if stopped := self.stopped():
            summary["stopped"] = stopped
        if self._best is not None:
            summary["best"] = self._best.record
        summary.setdefault("test_accuracy", None)
        summary.setdefault("test_loss", None)
        return summary

    def diagnosis(self, record: Record) -> None:
        """Append a line to the metrics; the summary has the last one."""
        self._diagnosis = {DIAGNOSIS: record}
        self._log({"kind": DIAGNOSIS, **record, "seconds": time.perf_counter() - self._start})

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Write every unit's vector, if asked to."""
        if self._keep_units:
            named = {str(unit): vector.cpu() for unit, vector in vectors.items()}
            replace(self._folder / UNITS, lambda part: save_file(named, part))

    def stops(self) -> bool:
        """Return that nobody asks for the end."""
        return False

    def state_dict(self) -> State:
        """Return where the metrics end, of which all else is made again, and how long the run has taken."""
        return {"metrics": self._metrics.position(), "seconds": time.perf_counter() - self._start}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`: forget what was written later, and read again what was told before."""
        self._start = time.perf_counter() - state["seconds"]
        for record in self._metrics.cut(state["metrics"]):
            if record["kind"] == "train":
                self._note(record)
            elif record["kind"] == DIAGNOSIS:
                own = {name: value for name, value in record.items() if name not in ("kind", "seconds")}
                self._diagnosis = {DIAGNOSIS: own}
            elif self._best is not None:
                self._best.takes(record)

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """End all loggers, whichever of them fails, with the summary so far."""
        with ExitStack() as ending:
            # Backwards, as the stack calls first what was put on it last.
            for logger in reversed(self._loggers):
                ending.callback(logger.finish, self.summary)

    def _model(self, model: nn.Module, record: Record, name: str, name_of_rest: str) -> Writers:
        """Return what writes the files of the model that was measured, by their names."""
        if self._parts:
            texts = indices(record[VERSION], self._parts)
            return {name: partial(_write_text, text) for name, text in texts.items()}
        files: Writers = {name: partial(save_file, saved(model), metadata={VERSION: str(record[VERSION])})}
        if rest := unsaved(model):
            files[name_of_rest] = partial(save_file, rest)
        return files

    def _log(self, record: Record) -> None:
        for logger in self._loggers:
            logger.log(record)


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
