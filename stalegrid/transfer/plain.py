"""What a plain PyTorch loop takes from a run, and what it gives to one.

Does not know: runs, grids, how files lie.
"""

from pathlib import Path

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.errors import ConfigError
from stalegrid.observe import saved, unsaved
from stalegrid.stages import load_named, load_schedule, named_state
from stalegrid.transfer.exported import Exported, restore_exported, write_exported


def save_exported(
    path: Path | str, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler | None = None, *, updates: int = 0
) -> None:
    """Write a model and the state of its training as ``stalegrid export`` does, for ``train(..., start_from=...)``.

    Args:
        path: file of the model, ``NAME.safetensors``; the optimizer's is ``NAME.optimizer.safetensors``.
        model: that is trained.
        optimizer: over its parameters.
        scheduler: of the optimizer.
        updates: that were made.

    Raises:
        ConfigError: the path has another end, or the optimizer a parameter that is none of the model.
        OutputError: a file cannot be written.
    """
    training = named_state(optimizer, scheduler, model.named_parameters())
    write_exported(Path(path), Exported(saved(model), unsaved(model), training, updates))


def load_exported(
    path: Path | str,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
) -> int:
    """Give a model, its optimizer and its schedule what a run or a plain loop has exported.

    Args:
        path: file of the model.
        model: like the one that was trained.
        optimizer: over its parameters, of the class that it was trained with; None for none.
        scheduler: of the optimizer.

    Returns:
        The updates that were made.

    Raises:
        ConfigError: something is of another model, optimizer or schedule, or is not in the files.
        DataError: a file cannot be read.
    """
    found = restore_exported(model, Path(path))
    training = found.training
    if optimizer is not None and training is None:
        raise ConfigError(f"the model was exported alone (file: {path}); leave out the optimizer, or export its state")
    if scheduler is not None and (training is None or training.scheduler is None or optimizer is None):
        raise ConfigError(f"there is no state of a schedule and its optimizer (file: {path}); leave out the schedule")
    if optimizer is None or training is None:
        return found.version
    if scheduler is not None:
        load_schedule(scheduler, optimizer, training)
    load_named(optimizer, model.named_parameters(), training)
    return found.version
