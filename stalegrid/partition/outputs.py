"""What a captured model returns: a tree of tensors and constants; other objects stay where they were made.

Does not know: how a model is captured, where it is cut.

A cache of keys and values, as language models return it, holds tensors that no loss reads.  It would have to cross all
cuts after its first entry.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.errors import TrainingError
from stalegrid.objects import Form, each_leaf

CONSTANTS = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
"""What a form keeps as it is."""


@dataclass(frozen=True)
class Behind:
    """Stands in an output for an object that stayed behind.

    Args:
        kind: of object.
    """

    kind: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by copy and pickle, which know what to do without
            raise AttributeError(name)
        raise TrainingError(
            f"the model returns an object that is no tensor and does not leave its stage (kind: {self.kind}, asked "
            f"for: {name}); let the model return the tensors that the loss reads, or train with one stage"
        )


def parted(output: Any, kind: type | tuple[type, ...] = Tensor) -> tuple[Form, tuple[Any, ...]]:
    """Part what a model returns into its form and its tensors.

    Args:
        output: of the model.
        kind: what is taken for a tensor.
    """
    taken = (*kind, *CONSTANTS) if isinstance(kind, tuple) else (kind, *CONSTANTS)

    def known(leaf: Any) -> Any:
        return leaf if isinstance(leaf, taken) else Behind(type(leaf).__name__)

    return Form.split(each_leaf(known, output), kind)


class Returned(nn.Module):
    """Puts together what the model returns, at the end of the last stage.

    Args:
        form: of it.
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, *tensors: Tensor) -> Any:
        """Return the tree.

        Args:
            tensors: of it, in order.
        """
        return self.form.fill(tensors)


def shown(form: Form) -> str:
    """Describe a form in few words."""
    return f"{form.outline!r:.80}"
