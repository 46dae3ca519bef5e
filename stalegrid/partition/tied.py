"""Parameters that several stages of a cut model use.

Does not know: how a model is cut, costs, groups, messages.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.programs import Tie


def ties_of(model: nn.Module, stages: Sequence[nn.Module], *, apart: bool) -> tuple[Tie, ...]:
    """Return the trained parameters that several stages use; what is frozen needs no tie, each has a copy.

    Args:
        model: that was cut.
        stages: its parts, with the model's own parameters.
        apart: whether stages may share parameters at all.

    Returns:
        Ties, in the order of the model's parameters.

    Raises:
        ConfigError: stages share a buffer, or a parameter though they should not.
    """
    ties = []
    for name, parameter in model.named_parameters():
        users = _users(parameter, [dict(stage.named_parameters()) for stage in stages])
        if len(users) > 1 and parameter.requires_grad:
            if not apart:
                raise ConfigError(
                    f"two stages share a parameter (name: {name}, {_shown(users)}) that should stay together "
                    "(grid.tied: together); put all uses into one stage, untie them, or leave grid.tied out; what the "
                    "model returns as it is, the last stage uses: return a clone that is made before the cut"
                )
            ties.append(Tie(tuple(users), tuple(users.values())))
    _check_buffers(model, stages)
    return tuple(ties)


def _check_buffers(model: nn.Module, stages: Sequence[nn.Module]) -> None:
    for name, buffer in model.named_buffers():
        users = _users(buffer, [dict(stage.named_buffers()) for stage in stages])
        if len(users) > 1:
            raise ConfigError(
                f"two stages share a buffer (name: {name}, {_shown(users)}): each would have its own copy, such as of "
                "running statistics, and see only its own uses; put all uses into one stage, give each a buffer of its "
                "own, or compute it in the forward; what the model returns as it is, the last stage uses: return a "
                "clone that is made before the cut"
            )


def _users(tensor: Tensor, stages: Sequence[dict[str, Tensor]]) -> dict[int, str]:
    """Return the stages that use a tensor, ascending, with the name that each has for it."""
    # By identity: what is tied may have several names.
    found = {k: next((n for n, t in tensors.items() if t is tensor), None) for k, tensors in enumerate(stages)}
    return {k: name for k, name in found.items() if name is not None}


def _shown(users: dict[int, str]) -> str:
    return f"stages: {', '.join(map(str, users))}"
