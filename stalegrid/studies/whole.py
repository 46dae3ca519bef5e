"""A whole model as plain loops call it: with tensors, one by one.

Does not know: what the tensors are, what the loops compute.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from stalegrid.objects import PLACE, Form, call


class Whole(nn.Module):
    """Put tensors into the arguments of a model.

    Args:
        model: that is called.
        form: of its arguments.
    """

    def __init__(self, model: nn.Module, form: Form) -> None:
        super().__init__()
        self.model = model
        self.form = form

    def named_parameters(self, *given: Any, **options: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield them under their own names, by which an optimizer may choose."""
        return self.model.named_parameters(*given, **options)

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the model returns."""
        return call(self.model, self.form, tensors)


def wrapped(stages: Sequence[nn.Module], form: Form | None) -> list[nn.Module]:
    """Return stages that take tensors one by one.

    Args:
        stages: of a model.
        form: of the arguments of the first; None where it takes tensors as it is.
    """
    first, *others = stages
    if form is None or form.outline == ((PLACE,) * len(form.outline[0]), {}):
        return [first, *others]
    return [Whole(first, form), *others]


def unwrapped(stage: nn.Module) -> nn.Module:
    """Return the stage itself, whose parameters have their own names."""
    return stage.model if isinstance(stage, Whole) else stage
