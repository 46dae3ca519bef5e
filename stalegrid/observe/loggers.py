"""Where the records of a run are kept for people to look at: what such a place answers, and those that have a name.

Does not know: agents, engines, who measures.
"""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stalegrid.errors import ConfigError
from stalegrid.observe.mlflow import MLflow
from stalegrid.observe.records import Record
from stalegrid.observe.tensorboard import TensorBoard
from stalegrid.observe.wandb import WeightsAndBiases
from stalegrid.written import is_path, said, unknown, value_of


@runtime_checkable
class Logger(Protocol):
    """What keeps the records of a run; called in the observer's process, and a copy of what was given."""

    def start(self, settings: Record) -> object:
        """Begin.

        Args:
            settings: of the run, as ``config.yaml`` has them.
        """

    def log(self, record: Record) -> object:
        """Keep a record, as a line of ``metrics.jsonl`` has it."""

    def finish(self, summary: Record) -> object:
        """End.

        Args:
            summary: of the run, as ``summary.json`` has it; of the run so far where it failed.
        """


NAMED: dict[str, tuple[str, Callable[[Path | None], Logger]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
}
"""By name: the package that a place needs, and what makes it, given the folder of the run."""


def find_loggers(names: Sequence[str] | None, given: Sequence[str | Logger], folder: Path | None) -> list[Logger]:
    """Return the places that are asked for.

    Args:
        names: in the settings; None for TensorBoard, where it is installed and there is a folder.
        given: more of them, by name or as values.
        folder: of the run; None where there is none that stays.

    Raises:
        ConfigError: one is none, has no such name, or its package is missing.
    """
    if names is None:
        names = ["tensorboard"] if folder is not None and importlib.util.find_spec("tensorboard") else []
    return [_found(one, folder) for one in (*names, *given)]


def _found(asked: Any, folder: Path | None) -> Logger:
    if not isinstance(asked, str):
        if isinstance(asked, type) or not isinstance(asked, Logger):
            shown = asked.__name__ if isinstance(asked, type) else type(asked).__name__
            raise ConfigError(f"a logger is an object with start, log and finish (it is: {shown})")
        return asked
    if is_path(asked):
        kind = value_of(asked, "output.loggers")
        try:
            made = kind()
        except Exception as problem:  # the class is the user's: anything can be raised
            raise ConfigError(f"the logger cannot be made (output.loggers: {asked}): {said(problem)}") from problem
        return _found(made, folder)
    if asked not in NAMED:
        raise ConfigError(unknown("logger", asked, list(NAMED)))
    package, make = NAMED[asked]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"a package is missing (output.loggers: {asked}); pip install 'stalegrid[{asked}]'")
    if asked == "tensorboard" and folder is None:
        raise ConfigError("TensorBoard writes into the folder of the run, and there is none (output.loggers); name one")
    return make(folder)


class Spared:
    """A logger that training can do without: its first error is told, and it is left out from then on.

    Args:
        logger: that may fail.
        say: takes what is told.
    """

    def __init__(self, logger: Logger, say: Callable[[str], object]) -> None:
        self._logger: Logger | None = logger
        self._say = say

    def start(self, settings: Record) -> None:
        """Pass it on."""
        self._try("start", settings)

    def log(self, record: Record) -> None:
        """Pass it on."""
        self._try("log", record)

    def finish(self, summary: Record) -> None:
        """Pass it on."""
        self._try("finish", summary)

    def _try(self, name: str, record: Record) -> None:
        if self._logger is None:
            return
        try:
            getattr(self._logger, name)(record)
        except Exception as problem:  # whatever it is, training is worth more
            kind, self._logger = type(self._logger).__name__, None
            self._say(f"training goes on without {kind}: {type(problem).__name__}: {problem}")


def spared(loggers: Sequence[Logger], say: Callable[[str], object]) -> list[Logger]:
    """Return loggers that training can do without."""
    return list(map(partial(Spared, say=say), loggers))
