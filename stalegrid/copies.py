"""Copies of the user's model.

Does not know: what a copy is for.
"""

import copy
from collections.abc import Iterator

from torch import Tensor, nn

from stalegrid.errors import ConfigError


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a model, or of a part of one.

    Args:
        model: left as it is.

    Raises:
        ConfigError: it holds something that cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as problem:  # what a model holds is the user's: anything can be raised
        held = next(_computed(model), None)
        if held is None:
            raise ConfigError(f"the model cannot be copied (model: {type(model).__name__}): {problem}") from problem
        raise ConfigError(
            f"the model holds the result of a computation, which cannot be copied (attribute: {held}); detach it, or "
            "compute it in the forward; for weight_norm take that of torch.nn.utils.parametrizations"
        ) from problem


def _computed(model: nn.Module) -> Iterator[str]:
    """Return the names of attributes that are tensors with a history."""
    for path, part in model.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                yield f"{path}.{name}" if path else name
