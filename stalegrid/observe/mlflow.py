"""A run in MLflow, where that is installed.

Does not know: agents, engines, other places.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stalegrid.observe.records import Record
from stalegrid.observe.scalars import scalars, step

_ALLOW = "MLFLOW_ALLOW_FILE_STORE"


class MLflow:
    """Logs a run; into files of its folder, unless ``MLFLOW_TRACKING_URI`` or an argument names another store.

    Args:
        folder: for the files; the current one if left out.
        uri: of another store.
        experiment: that the run belongs to.
    """

    def __init__(self, folder: Path | None = None, uri: str | None = None, experiment: str = "stalegrid") -> None:
        self._folder = folder
        self._uri = uri
        self._experiment = experiment

    def start(self, settings: Record) -> None:
        """Begin a run, whose parameters are the settings."""
        # Here, because it may not be installed, and loads slowly.
        from mlflow import MlflowClient

        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI")
        with _files_allowed():
            files = (Path.cwd() if self._folder is None else self._folder.absolute()) / "mlruns"
            self._client: Any = MlflowClient(tracking_uri=uri or files.as_uri())
        known = self._client.get_experiment_by_name(self._experiment)
        number = self._client.create_experiment(self._experiment) if known is None else known.experiment_id
        self._run: str = self._client.create_run(number).info.run_id
        for name, value in _flat(settings):
            self._client.log_param(self._run, name, value)

    def log(self, record: Record) -> None:
        """Log the scalars of a record."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # Its names have no brackets and commas.
        found = {re.sub(r"\((\d+),(\d+)\)", r"\1-\2", name): value for name, value in scalars(record).items()}
        metrics = [Metric(name, value, now, step(record)) for name, value in found.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self, summary: Record) -> None:
        """Say at which version the run ended."""
        if summary:
            self._client.set_tag(self._run, "version", summary["version"])
        self._client.set_terminated(self._run, "FINISHED" if summary else "FAILED")


@contextmanager
def _files_allowed() -> Iterator[None]:
    """Let MLflow keep a run in files: newer ones do that only if asked to."""
    before = os.environ.get(_ALLOW)
    os.environ[_ALLOW] = before or "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ALLOW]


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
