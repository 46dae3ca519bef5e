"""What came of a run: the models that it has kept, and its summary.

Does not know: how the run was carried out, files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from stalegrid.config import Settings
from stalegrid.errors import NonFiniteLoss
from stalegrid.observe import BEST, MODEL, Record
from stalegrid.plans import Task, cast_model, whole_model


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        model: a copy of the user's model with the mean parameters and buffers over groups, in evaluation mode; without
            values, on the device ``meta``, where stages have saved a model that was made stage by stage, or any under
            torchrun; and of one that was made so under torchrun in all processes but the first.
        summary: the content of ``summary.json``.
        folder: where the results are; None if no folder was asked for.
        best: a copy with the parameters and buffers of the best evaluation; None where ``output.best`` says nothing, or
            what it says was never a number.
    """

    model: nn.Module
    summary: Record
    folder: Path | None
    best: nn.Module | None = None

    @property
    def test_accuracy(self) -> float | None:
        """Share of test samples whose largest output is the target, of the last version."""
        accuracy: float | None = self.summary["test_accuracy"]
        return accuracy


def models(task: Task, settings: Settings, summary: Record, *, empty: bool = False) -> dict[str, nn.Module]:
    """Return a model for each that a run has kept, by the names of their files.

    Args:
        task: what was trained.
        settings: how.
        summary: of the run.
        empty: whether a model that was built without memory stays so.
    """
    kept, make = [MODEL, *([BEST] if summary.get("best") else [])], cast_model if empty else whole_model
    return {which: make(task, settings.training) for which in kept}


def result(models: Mapping[str, nn.Module], task: Task, settings: Settings, summary: Record) -> Result:
    """Return what came of a run, which has written it already.

    Raises:
        NonFiniteLoss: the model at the end has no finite test loss.
    """
    if task.test is not None and summary["test_loss"] is None:
        raise NonFiniteLoss(
            f"the test loss at the end is infinite or no number (version: {summary['version']}); lower the learning "
            "rate or the staleness, or clip the gradients"
        )
    for model in models.values():
        model.eval()
    return Result(models[MODEL], summary, settings.output.folder, models.get(BEST))
