"""A compiled stage held against the plain one, up to what a rounding would change.

Does not know: compilers, other stages.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from stalegrid.errors import ConfigError
from stalegrid.plans.trials.held_against import check_late, check_repeats
from stalegrid.plans.trials.trial import CPU, Asked, Some, Trial, said
from stalegrid.programs import layout_of
from stalegrid.seeds import drawing
from stalegrid.stages import (
    View,
)

_ROUNDINGS = 4
"""A compiled stage may be off by so many times what it changes to round all numbers of the plain one otherwise."""


def compiled(
    asked: Asked, view: type[View], plain: Trial, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> int:
    """Hold a compiled stage against the plain one, and return the bytes that a batch in flight holds with its graph."""
    k, program, trial = asked.stage, asked.program, Trial(asked)
    with said(f"a stage cannot be compiled (stage: {k})"):
        made = trial.forward(inputs)
        trial.recompute()
        nbytes = trial.stage.nbytes
        trial.backward(made)
    found, expected = trial.results(made), plain.results(outputs)
    close = partial(_close, lower=asked.precision.lower)
    unlike = [n for n, both in enumerate(zip(found, expected, strict=True)) if not close(*both)]
    if layout_of(made) != layout_of(outputs) or (unlike and not _as_rounded(unlike, found, expected, asked, inputs)):
        raise ConfigError(
            f"a compiled stage computes something else than the plain one, by more than rounding (stage: {k}); leave "
            "compile out"
        )
    if program.recomputes(k):
        check_repeats(k, Trial(asked), inputs)
    elif view.late(program.schedule, k):
        check_late(k, trial, Trial(asked), inputs)
    return nbytes


def _as_rounded(
    unlike: Sequence[int],
    found: Sequence[Some],
    expected: Sequence[Some],
    asked: Asked,
    inputs: tuple[Tensor, ...],
) -> bool:
    """Return whether a stage that is not compiled makes what is as far from expected, begun with numbers next to its.

    Where the values of many units are all but zero, a rounding decides which of them a ReLU lets through, and so moves
    gradients by more than any bound that knows nothing of the stage.  Those alone are looked at that are unlike.
    """
    trial = Trial(dataclasses.replace(asked, compiles=False))
    weights = trial.site.weights
    with drawing(CPU, 0, "rounding"):
        weights.flat[: weights.trained] = _next_to(weights.flat[: weights.trained])
        given = tuple(_next_to(x) if x.is_floating_point() else x for x in inputs)
    outputs = trial.forward(given)
    trial.recompute()
    trial.backward(outputs)
    rounded = trial.results(outputs)
    return all(_apart(found[n], expected[n]) <= _ROUNDINGS * _apart(rounded[n], expected[n]) for n in unlike)


def _next_to(x: Tensor) -> Tensor:
    """Return numbers that are larger or smaller by about one rounding, of themselves and of those that they meet.

    Zeros are moved too: what is padded makes the values of many units equal, and a maximum takes one of them.  Not by
    more than roundings of 1, and what has no number next to it stays: a mask leaves what it left.
    """
    others = x.square().mean().sqrt().clamp(max=1.0)
    moved = x + torch.finfo(x.dtype).eps * (x.abs() + others) * torch.randn_like(x).sign()
    return torch.where(moved.isfinite(), moved, x)


def _close(found: Some, expected: Some, lower: torch.dtype | None) -> bool:
    """Return whether tensors are alike but for rounding.

    Args:
        found: tensors, or none where nothing depends on one.
        expected: likewise.
        lower: a type to which something was rounded in between.
    """
    floating = {x.dtype for x in expected if x is not None and x.dtype.is_floating_point}
    rounding: float = max(torch.finfo(kind).eps for kind in {*floating, lower or torch.float64}) ** 0.5
    # All at once: a gradient by itself may be nothing but rounding, as that of a bias that a normalisation takes out.
    return _apart(found, expected) <= rounding * math.hypot(
        *(float(_wide(x).norm()) for x in expected if x is not None)
    )


def _apart(found: Some, expected: Some) -> float:
    """Return the length of the difference of all tensors; infinite where they cannot be held against each other."""
    kinds, wanted = ([None if x is None else (x.shape, x.dtype) for x in those] for those in (found, expected))
    if kinds != wanted:
        return math.inf
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    return math.hypot(*(float((_wide(a) - _wide(b)).norm()) for a, b in pairs))


def _wide(tensor: Tensor) -> Tensor:
    """Return a tensor in which differences are finite; what is not stays different from all that it may be instead."""
    kind = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.detach().to_dense().to(kind).nan_to_num(nan=2.0, posinf=3.0, neginf=-3.0)
