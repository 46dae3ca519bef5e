"""Training mode, which a model's own ``train()`` sets once, on the whole of it: it may keep some parts out.

Does not know: what is trained, stages.
"""

import warnings

from torch import nn

from stalegrid.copies import copied


def in_training(model: nn.Module) -> nn.Module:
    """Return a copy of a model in training mode, and warn of modes set by hand that do not outlive this.

    Args:
        model: left as it is.
    """
    now, trained = _modes(model), copied(model).train()
    after = _modes(trained)
    undone = [name for name, training in after.items() if training and not now[name]]
    by_hand = undone and now != _modes(copied(model).eval())
    if by_hand:
        outermost = [name for name in undone if not any(name.startswith(f"{other}.") for other in undone)]
        warnings.warn(
            f"training begins with train(), which puts parts into training mode that were not (parts: "
            f"{', '.join(outermost)}); override train() in the model to keep them as they were",
            stacklevel=2,
        )
    return trained


def _modes(model: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in model.named_modules()}
