"""A run in TensorBoard, where that is installed.

Does not know: agents, engines, other places.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stalegrid.observe.records import Record
from stalegrid.observe.scalars import scalars, step


class TensorBoard:
    """Writes loss, metrics, learning rate, staleness, gap, memory held and consensus distance for TensorBoard.

    Args:
        folder: of the run, which gets a folder ``tensorboard``.
    """

    def __init__(self, folder: Path | None) -> None:
        assert folder is not None
        self._folder = folder / "tensorboard"

    def start(self, settings: Record) -> None:
        """Open the files."""
        # Here, because TensorBoard may not be installed, and loads slowly.
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(self._folder))

    def log(self, record: Record) -> None:
        """Write the scalars of a record."""
        for unit, seen in record.get("staleness", {}).items():
            self._draw(f"staleness by batch/{unit}", seen["histogram"], record["update"])
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, step(record))
        if record["kind"] == "test":
            self._writer.flush()

    def finish(self, summary: Record) -> None:
        """Close the files."""
        self._writer.close()

    def _draw(self, name: str, histogram: Sequence[int], update: int) -> None:
        values = [tau for tau, count in enumerate(histogram) for _ in range(count)]
        # One bin for each whole number, around it.
        self._writer.add_histogram(name, np.array(values), update, bins=np.arange(len(histogram) + 1) - 0.5)
