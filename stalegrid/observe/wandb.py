"""A run in Weights & Biases, where that is installed.

Does not know: agents, engines, other places.
"""

import os
from pathlib import Path
from typing import Any

from stalegrid.observe.records import Record
from stalegrid.observe.scalars import scalars, step


class WeightsAndBiases:
    """Logs a run; offline, for ``wandb sync`` later, unless ``WANDB_MODE`` says otherwise.

    Args:
        folder: for its files; where ``wandb`` puts them by itself if left out.
        options: of ``wandb.init``, such as ``project``.
    """

    def __init__(self, folder: Path | None = None, **options: Any) -> None:
        self._folder = folder
        self._options = options

    def start(self, settings: Record) -> None:
        """Begin a run, whose config is that of the run."""
        # Here, because it may not be installed, and loads slowly.
        import wandb

        usual: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", "stalegrid"),
            # Online it asks for a key, which nobody could give a process in the background.
            "mode": os.environ.get("WANDB_MODE", "offline"),
            "dir": None if self._folder is None else str(self._folder),
            "settings": wandb.Settings(silent=True, console="off"),
        }
        self._wandb = wandb
        self._run = wandb.init(config=settings, **(usual | self._options))

    def log(self, record: Record) -> None:
        """Log the scalars of a record."""
        self._run.log(scalars(record), step=step(record))

    def finish(self, summary: Record) -> None:
        """Keep the summary, and end the process that writes the files."""
        self._run.summary.update(summary)
        self._run.finish()
        self._wandb.teardown()
