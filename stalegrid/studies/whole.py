"""A whole model as plain loops call it: with tensors, one by one.

Does not know: what the tensors are, what the loops compute.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from stalegrid.objects import PLACE, Form, LossFunction, call
from stalegrid.stages import Precision


class Whole(nn.Module):
    """Put tensors into the arguments of a model.

    Args:
        model: that is called.
        form: of its arguments; None for one by one.
        precision: what it computes in.
    """

    def __init__(self, model: nn.Module, form: Form | None, precision: Precision) -> None:
        super().__init__()
        self.model = model
        self.form = form
        self.precision = precision

    def named_parameters(self, *given: Any, **options: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield them under their own names, by which an optimizer may choose."""
        return self.model.named_parameters(*given, **options)

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the model returns."""
        with self.precision.on(tensors[0].device):
            return call(self.model, self.form, tensors)


def wrapped(stages: Sequence[nn.Module], form: Form | None, precision: Precision) -> list[nn.Module]:
    """Return stages that take tensors one by one.

    Args:
        stages: of a model.
        form: of the arguments of the first; None where it takes tensors as it is.
        precision: what they compute in.
    """
    first, *others = stages
    if precision.lower is not None:
        return [Whole(first, form, precision), *(Whole(stage, None, precision) for stage in others)]
    if form is None or form.outline == ((PLACE,) * len(form.outline[0]), {}):
        return [first, *others]
    return [Whole(first, form, precision), *others]


def lowered(loss: LossFunction, precision: Precision) -> LossFunction:
    """Return a loss that is computed in what a model computes in."""
    if precision.lower is None:
        return loss

    def found(*tensors: Any) -> Any:
        with precision.on(next(x.device for x in tensors if isinstance(x, Tensor))):
            return loss(*tensors)

    return found


def unwrapped(stage: nn.Module) -> nn.Module:
    """Return the stage itself, whose parameters have their own names."""
    return stage.model if isinstance(stage, Whole) else stage
