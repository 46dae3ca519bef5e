"""Which parameters each server has: runs of whole tensors, about equally large.

Does not know: who sends them, what updates them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.objects import copied
from stalegrid.partition.balancing import balance
from stalegrid.stages import StageLayout, Weights


@dataclass(frozen=True, slots=True)
class Shard:
    """What one server has of a model.

    Args:
        start: first element of its parameters in the vector of the whole model.
        stop: the element after the last.
        layout: of the server's own vector: its parameters and, on the first server, what follows them.
        names: of its parameters.
    """

    start: int
    stop: int
    layout: StageLayout
    names: tuple[str, ...]

    @property
    def buffers(self) -> int:
        """Elements of running statistics, which the first server has."""
        return self.layout.numel - self.layout.trained


def split(model: nn.Module, servers: int, moving: Collection[str] = ()) -> tuple[Shard, ...]:
    """Split the trained parameters of a model over servers.

    Args:
        model: which; left as it is.
        servers: how many.
        moving: frozen parameters that the forward changes; the first server has them, like buffers.

    Raises:
        ConfigError: there is nothing to train, or less than one tensor a server.
    """
    whole = Weights(copied(model), moving)
    entries = [entry for entry in whole.entries if entry.offset < whole.trained]
    if not entries:
        raise ConfigError(f"the model has no parameters to train (model: {type(model).__name__})")
    if not 1 <= servers <= len(entries):
        raise ConfigError(
            f"the trained parameters cannot be split over so many servers (servers: {servers}, tensors: "
            f"{len(entries)}); a tensor stays whole, so take 1 to {len(entries)}"
        )
    offsets = [*(entry.offset for entry in entries), whole.trained]
    sizes = [float(after - before) for before, after in pairwise(offsets)]
    # Between tensors only: optimizers and corrections work tensor by tensor.
    cuts = balance(sizes, servers, range(1, len(entries)), lambda cut: 0.0, lambda start, stop: True)
    assert cuts is not None
    bounds = [0, *cuts, len(entries)]
    frozen = [name for name, p in model.named_parameters() if name in moving and not p.requires_grad]
    return tuple(
        _shard(model, [entry.name for entry in entries[a:b]], offsets[a], offsets[b], None if a else frozen)
        for a, b in pairwise(bounds)
    )


def _shard(model: nn.Module, names: Sequence[str], start: int, stop: int, moving: Sequence[str] | None) -> Shard:
    # Buffers are the first server's: learners send it theirs, and it has their mean.
    own = shard_of(model, [*names, *(moving or ())], buffers=moving is not None)
    return Shard(start, stop, StageLayout.of(Weights(own, moving or ())), tuple(names))


def shard_of(model: nn.Module, names: Collection[str], *, buffers: bool) -> nn.Module:
    """Return a copy of a model that has some of its parameters only, under their own names.

    Args:
        model: left as it is.
        names: of parameters.
        buffers: whether it has all buffers, or none.
    """
    own = copied(model)
    kept = {id(p) for name, p in own.named_parameters() if name in names}
    for module in own.modules():
        for name, parameter in list(module._parameters.items()):
            if id(parameter) not in kept:
                del module._parameters[name]
        if not buffers:
            module._buffers.clear()
    return own
