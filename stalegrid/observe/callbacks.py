"""What users let be called while a run goes on, in the process of its observer.

Does not know: agents, engines, which version a run ends at that is asked to.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Memory, State, copied
from stalegrid.observe.records import Record
from stalegrid.programs import Unit
from stalegrid.written import is_path, said, value_of

T = TypeVar("T")


class Stop(Exception):
    """Raised by a callback to ask for the end of a run; its text is told in the summary."""


class Callback:
    """What is called while a run goes on; inherit, and override what you need.

    A copy is called, in the observer's process: what it finds out leaves it by files, or by what it prints.  No bit of
    what is trained depends on it.  Where one returns True from :meth:`on_report` or :meth:`on_evaluation`, or raises
    :class:`Stop`, the run ends some updates later, at a version that all units have in common and the summary names.

    Attributes:
        stops: whether it may ask for the end; units then wait where the observer is a whole evaluation behind them.
        writes: whether it needs a folder that stays.
        by: a number of evaluations that it needs, as ``output.best`` names one; None for none.
    """

    stops: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    by: str | None = None

    def on_start(self, folder: Path) -> None:
        """Begin, before the first report.

        Args:
            folder: of the run, for files.
        """

    def on_report(self, record: Record) -> bool | None:
        """Take what units reported of some updates.

        Args:
            record: as a line of ``metrics.jsonl`` with ``kind: train`` has it, but for times.
        """
        return None

    def on_evaluation(self, record: Record, model: nn.Module) -> bool | None:
        """Take what was measured at a version.

        Args:
            record: as a line of ``metrics.jsonl`` with ``kind: test`` has it, but for times.
            model: a copy of the mean model, in evaluation mode; without values, on the device ``meta``, where stages
                measure it.
        """
        return None

    def on_end(self, summary: Record) -> None:
        """Take the summary of a run that ended well."""


def find_callbacks(paths: Sequence[str]) -> list[Callback]:
    """Return the callbacks that paths name: themselves, or classes and functions that make them.

    Raises:
        ConfigError: a path names nothing, or what makes no callback.
    """
    return [_made(path) for path in paths]


def _made(path: str) -> Callback:
    if not is_path(path):
        raise ConfigError(f"a callback is named by its path, PACKAGE.MODULE:NAME (output.callbacks: {path!r})")
    found = value_of(path, "output.callbacks")
    if isinstance(found, Callback):
        return found
    try:
        made = found()
    except Exception as problem:  # what makes it is the user's: anything can be raised
        raise ConfigError(
            f"the callback cannot be made (output.callbacks: {path}): {said(problem)}; name a function that makes it "
            "of what it needs, or the callback itself"
        ) from problem
    (callback,) = _checked([made])
    return callback


def own_callbacks(asked: Sequence[Callback]) -> list[Callback]:
    """Return copies of callbacks, so that a run leaves no trace in the user's own, nor one in the next.

    Raises:
        ConfigError: something is no callback, or cannot be copied.
    """
    return own_copies(_checked(asked), "callback")


def _checked(asked: Sequence[Any]) -> Sequence[Callback]:
    for callback in asked:
        if not isinstance(callback, Callback):
            shown = callback.__name__ if isinstance(callback, type) else type(callback).__name__
            raise ConfigError(f"a callback is an object whose class inherits from stalegrid.Callback (it is: {shown})")
    return asked


def own_copies(asked: Sequence[T], what: str) -> list[T]:
    """Return copies of what users let be called.

    Raises:
        ConfigError: one cannot be copied.
    """
    try:
        return [copy.deepcopy(one) for one in asked]
    except Exception as problem:  # they are the user's: anything can be raised
        raise ConfigError(
            f"a {what} cannot be copied: {problem}; let it open what it needs when it starts"
        ) from problem


class Calling:
    """Calls callbacks, and keeps who asked for the end.

    Args:
        callbacks: of the run.
        folder: of the run.
        summary: returns that of the run so far.
    """

    def __init__(self, callbacks: Sequence[Callback], folder: Path, summary: Callable[[], Record]) -> None:
        self._callbacks = callbacks
        self._summary = summary
        self._asked: Record = {}
        self.stopped: Record = {}
        for callback in callbacks:
            callback.on_start(folder)
        self._memories = [(callback, Memory(callback)) for callback in callbacks]

    def report(self, record: Record) -> None:
        """Call them with a report."""
        for callback in self._callbacks:
            self._hear(callback, record["update"], lambda own: own.on_report(copy.deepcopy(record)))

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Call them with an evaluation and models of their own, which they may change."""
        for callback in self._callbacks:
            self._hear(
                callback, record["version"], lambda own: own.on_evaluation(copy.deepcopy(record), copied(model).eval())
            )

    def diagnosis(self, record: Record) -> None:
        """Tell nobody: loggers are given it."""

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Tell nobody."""

    def stops(self) -> bool:
        """Return whether somebody has asked for the end; then the summary says who."""
        self.stopped = self._asked
        return bool(self._asked)

    def state_dict(self) -> State:
        """Return what callbacks remember, and who asked for the end."""
        return {
            "callbacks": [(type(c).__qualname__, m.state_dict()) for c, m in self._memories],
            "asked": self._asked,
            "stopped": self.stopped,
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`; a callback that was not there begins anew."""
        known = list(state["callbacks"])
        for callback, memory in self._memories:
            found = next((pair for pair in known if pair[0] == type(callback).__qualname__), None)
            if found is not None:
                known.remove(found)
                memory.load_state_dict(found[1])
        self._asked, self.stopped = state["asked"], state["stopped"]

    def finish(self) -> None:
        """Call them with the summary."""
        for callback in self._callbacks:
            callback.on_end(copy.deepcopy(self._summary()))

    def close(self) -> None:
        """Do nothing."""

    def _hear(self, callback: Callback, version: int, call: Callable[[Callback], bool | None]) -> None:
        try:
            # Evaluations run without gradients, a user's own code as it would anywhere.
            with torch.enable_grad():
                asks, why = bool(call(callback)), ""
        except Stop as stop:
            asks, why = True, str(stop)
        # The first one counts; all are called all the same.
        if asks and not self._asked:
            self._asked = {"by": type(callback).__qualname__, "asked_at": version, "why": why}
