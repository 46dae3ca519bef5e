"""Training mode, which a model's own ``train()`` sets once, on the whole of it: it may keep some parts out.

Does not know: what is trained, stages.

On the whole, before it is cut: a model that overrides ``train()`` to keep its normalisation in evaluation mode does so
in every stage.  Modes set by hand do not outlive that call, as in a plain loop.
"""

import warnings

from torch import nn

from stalegrid.objects.copies import copied


def in_training(model: nn.Module) -> nn.Module:
    """Return a copy of a model in training mode, and warn of modes set by hand that do not outlive this.

    Args:
        model: left as it is.
    """
    now, trained = _modes(model), copied(model).train()
    undone = [name for name, training in _modes(trained).items() if training and not now[name]]
    # A model that is in evaluation mode as a whole has only been measured before; nobody meant any part of it.
    if undone and now != _modes(copied(model).eval()):
        outermost = [name for name in undone if not any(name.startswith(f"{other}.") for other in undone)]
        parts = ", ".join(outermost) if outermost[0] else "the whole model"
        warnings.warn(
            "training begins with train(), which puts parts into training mode that are in evaluation mode by hand "
            f"(parts: {parts}); override train() in the model to keep them as they are",
            stacklevel=2,
        )
    return trained


def _modes(model: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in model.named_modules()}
