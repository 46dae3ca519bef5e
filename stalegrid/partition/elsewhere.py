"""The stages of a cut model, held against the model once more on the device that they will train on.

Does not know: how cuts are chosen, groups, engines.

A model is captured on the CPU.  What its forward does by the device of its inputs, or autocast by the kind of device,
is captured as it is there, and may be otherwise on a GPU: it must not be so in silence.
"""

import warnings
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors, copied, tensors_in
from stalegrid.partition.apart import first_difference, repeats
from stalegrid.partition.cutting import Partition
from stalegrid.seeds import drawing

ALONE = "so its stages were held against it on the CPU alone"


def check_on(device: torch.device, model: nn.Module, cut: Partition, inputs: Tensors, form: Form | None = None) -> None:
    """Hold the stages of a model against it on a device: what crosses cuts, outputs, gradients and buffers.

    Where the model computes something else each time, or does not fit on the device as a whole, that cannot be done,
    and is told; and so is a gradient that rounds otherwise, as kernels of a GPU do with another memory layout.

    Args:
        device: that the stages will train on.
        model: that was cut, on the CPU; left as it is.
        cut: its stages.
        inputs: the tensors of a batch of the first shape that it was cut for.
        form: how the model is called with them; None for one by one.

    Raises:
        ConfigError: the stages compute something else there than the model, or send something else than they were
            planned to.
    """
    whole, stages = copied(model), cut.stages(copied(model))
    whole.train()
    differs = partial(first_difference, whole, stages, [inputs], form, device)
    try:
        found = differs() or _other_types(stages, cut, inputs, device)
        if found is None:
            return
        if not repeats(whole, inputs, form, device):
            _tell(f"on {device} the model computes something else each time, {ALONE}")
            return
        roughly = differs(exact=False) or _other_types(stages, cut, inputs, device)
    except torch.OutOfMemoryError:
        _tell(f"on {device} the model does not fit as a whole, {ALONE}")
        return
    if roughly is None:
        _tell(
            f"on {device} {found[1]}, by rounding, from that of the model as a whole: runs have the same bits on every "
            "engine there, and a plain loop has others"
        )
        return
    batch, problem = roughly
    raise ConfigError(
        "on the device of the training the stages compute something else than the model, or than on the CPU, where it "
        f"was captured (device: {device}, cuts: {', '.join(cut.names)}, batch: {batch}): {problem}; let its forward do "
        "the same on every device, say in which type autocast computes, and cut where it is left, or keep such parts "
        "whole (blocks)"
    )


def _other_types(
    stages: Sequence[nn.Module], cut: Partition, inputs: Tensors, device: torch.device
) -> tuple[int, str] | None:
    """Return what crosses a cut in another type than it was planned in, if something does."""
    tensors = tuple(x.to(device) for x in inputs)
    with drawing(device, 0, "trial"), torch.no_grad():
        for name, stage, layout in zip(cut.names, stages, cut.layouts, strict=False):
            tensors = tensors_in(copied(stage).to(device)(*tensors))
            found, due = [x.dtype for x in tensors], [spec.dtype for spec in layout]
            if found != due:
                return 0, f"other types cross the cut at {name} (found: {found}, due: {due})"
    return None


def _tell(what: str) -> None:
    warnings.warn(what, stacklevel=5)
