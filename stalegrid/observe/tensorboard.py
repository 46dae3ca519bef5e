"""A run in TensorBoard, where that is installed.

Does not know: agents, engines, other places.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from stalegrid.observe.metrics import PREFIX
from stalegrid.observe.records import Record
from stalegrid.programs import Unit


class TensorBoard:
    """Writes loss, accuracy, learning rate, staleness, gap, memory held and consensus distance for TensorBoard.

    Args:
        folder: for the event files.
    """

    def __init__(self, folder: Path) -> None:
        # Here, because TensorBoard may not be installed, and loads slowly.
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
        names = (*(name for name in record if name.startswith(PREFIX)), "consensus_distance")
        self._write({f"test/{name}": record.get(name) for name in names}, record["version"])
        self._writer.flush()

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Write nothing."""

    def stops(self) -> bool:
        """Return that nobody asks for the end."""
        return False

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the files."""
        self._writer.close()

    def _draw(self, name: str, histogram: Sequence[int], step: int) -> None:
        values = [tau for tau, count in enumerate(histogram) for _ in range(count)]
        # One bin for each whole number, around it.
        self._writer.add_histogram(name, np.array(values), step, bins=np.arange(len(histogram) + 1) - 0.5)

    def _write(self, scalars: Mapping[str, float | None], step: int) -> None:
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
