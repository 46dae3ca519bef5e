"""A model without memory, and where values for its tensors are; parts of it in memory.

Does not know: stages, processes, where values are from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from stalegrid.objects import Thin, copied, is_large, tensors_of
from stalegrid.seeds import drawing
from stalegrid.sources.drawn import CPU, Drawn
from stalegrid.sources.folders import Files
from stalegrid.sources.recording import record


class Source(Protocol):
    """Where values are."""

    def value(self, name: str) -> Tensor:
        """Return a tensor in memory, in whichever floating type."""

    def text(self) -> str:
        """Return what processes compare."""


@dataclass(frozen=True)
class Built:
    """A model without memory.

    Args:
        model: that a factory made; its parameters and buffers have no content (``meta``).
        source: of their values.
    """

    model: nn.Module
    source: Source


def built(factory: Callable[[], nn.Module], seed: int, weights: Path | None = None) -> Built:
    """Build a model without memory.

    Args:
        factory: makes the model.
        seed: of the run, from which initial values are drawn.
        weights: a folder or a file of safetensors, in place of initial values.

    Raises:
        ConfigError: the factory reads values, a tensor has none, or the files are of another model.
        DataError: a file is missing or broken.
    """
    with drawing(CPU, seed, "model"):
        model, recording = record(factory)
    drawn = Drawn(recording, seed)
    if weights is None:
        drawn.check(recording.places)
        return Built(model, drawn)
    files = Files(weights, _saved(model), drawn)
    files.check({name: place.shape for name, place in recording.places.items()})
    return Built(model, files)


def whole_model(factory: Callable[[], nn.Module], seed: int = 0, weights: Path | str | None = None) -> nn.Module:
    """Make a model as a whole, with the values with which :func:`stalegrid.train` begins that makes it stage by stage.

    Args:
        factory: makes the model.
        seed: of the run, from which initial values are drawn.
        weights: a folder or a file of safetensors, in place of initial values.

    Raises:
        ConfigError: the factory reads values, a tensor has none, or the files are of another model.
        DataError: a file is missing or broken.
    """
    made = built(factory, seed, None if weights is None else Path(weights))
    return filled(made.model, made.model, made.source)


def _saved(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the names of every tensor that a model saves, by its first one."""
    saved: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        saved.setdefault(id(tensor), []).append(name)
    return {name: tuple(saved[id(t)]) for name, t in tensors_of(model).items() if id(t) in saved}


def filled(part: nn.Module, model: nn.Module, source: Source) -> nn.Module:
    """Return a copy of a part of a model, in memory.

    Args:
        part: shares tensors with the model.
        model: without memory, and the names of its tensors; in any floating type.
        source: of the values.
    """
    names = {id(tensor): name for name, tensor in tensors_of(model).items()}
    bare = (tensor for tensor in tensors_of(part).values() if tensor.is_meta)
    # A deep copy takes what is there already, wherever the part holds the tensor.
    return copied(part, {id(tensor): _like(tensor, source.value(names[id(tensor)])) for tensor in bare})


def stand_in(model: nn.Module, source: Source) -> nn.Module:
    """Return a copy of a model with which all can be tried that a model does, in little memory.

    Small tensors, and all buffers, have their values; large parameters have others.

    Args:
        model: without memory.
        source: of the values.
    """
    with drawing(CPU, 0, "stand-in"):
        large = {id(p): Thin.like(p) for p in model.parameters() if p.is_meta and is_large(p)}
    small = {name: t for name, t in tensors_of(model).items() if t.is_meta and id(t) not in large}
    return copied(model, {**large, **{id(t): _like(t, source.value(name)) for name, t in small.items()}})


def _like(tensor: Tensor, value: Tensor) -> Tensor:
    # A copy, as what is read from a file lies in the file.
    own = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(value)
    return nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own
