"""The vectors that spectral normalisation keeps of a weight, which are no running statistics.

Does not know: groups, who averages what.

Both forms of torch, the parametrization and the older hook, keep approximate singular vectors of a weight in buffers
and improve them by a round of power iteration in every training forward.  The mean of unit vectors is no unit vector,
so replicas keep their own; a mean of weights gets new ones.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

ROUNDS = 1000
"""Of power iteration at most; usually a few dozen leave the vectors as they are."""

CLOSE = 1e-6
"""Change of a unit vector in a round that is none."""


def vectors(module: nn.Module) -> frozenset[str]:
    """Return the names of the buffers that hold singular vectors."""
    return frozenset(f"{path}.{n}" if path else n for path, part in module.named_modules() for n in _own(part))


@torch.no_grad()
def renew(module: nn.Module) -> None:
    """Find the singular vectors of the present weights, which are not those that the buffers were made for."""
    for part in module.modules():
        for owner, improve in _iterations(part):
            _settle([b for name in _own(owner) if (b := owner._buffers[name]) is not None], improve)


def computed(part: nn.Module) -> frozenset[str]:
    """Return the names of the weights that a module's hooks compute anew in every forward."""
    return frozenset(hook.name for hook in _hooks(part))


def _own(part: nn.Module) -> list[str]:
    names = ["_u", "_v"] if isinstance(part, _SpectralNorm) else [f"{h.name}_{x}" for h in _hooks(part) for x in "uv"]
    return [name for name in names if part._buffers.get(name) is not None]


def _iterations(part: nn.Module) -> Iterator[tuple[nn.Module, Callable[[], object]]]:
    """Yield the owner of each normalised weight's vectors, and what improves them by a round."""
    for hook in _hooks(part):
        yield part, partial(hook.compute_weight, part, do_power_iteration=True)
    if parametrize.is_parametrized(part):
        chains = part.parametrizations
        assert isinstance(chains, nn.ModuleDict)
        for name, chain in chains.items():
            for norm in chain.children():
                if isinstance(norm, _SpectralNorm):
                    yield norm, partial(_look, part, name, norm)


def _look(part: nn.Module, name: str, norm: nn.Module) -> None:
    """Read a normalised weight as a training forward does."""
    was = norm.training
    # In evaluation mode the vectors stay as they are.
    norm.train()
    getattr(part, name)
    norm.train(was)


def _settle(buffers: list[Tensor], improve: Callable[[], object]) -> None:
    for _ in range(ROUNDS):
        before = [b.clone() for b in buffers]
        improve()
        if all(float(torch.dist(a, b)) < CLOSE for a, b in zip(before, buffers, strict=True)):
            return


def _hooks(part: nn.Module) -> list[SpectralNorm]:
    return [hook for hook in part._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]
