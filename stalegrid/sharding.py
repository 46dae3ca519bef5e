"""Which parameters each server has: runs of whole tensors, about equally large.

Does not know: who sends them, what updates them.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.partition.balance import balance
from stalegrid.weights import StageLayout, Weights


@dataclass(frozen=True, slots=True)
class Shard:
    """What one server has of a model.

    Args:
        start: first element of its parameters in the vector of the whole model.
        stop: the element after the last.
        layout: of the server's own vector: its parameters and, on the first server, all floating buffers.
        names: of its parameters.
    """

    start: int
    stop: int
    layout: StageLayout
    names: tuple[str, ...]

    @property
    def buffers(self) -> int:
        """Elements of floating buffers, which the first server has."""
        return self.layout.numel - self.layout.trained


def split(model: nn.Module, servers: int) -> tuple[Shard, ...]:
    """Split the parameters of a model over servers.

    Args:
        model: which; left as it is.
        servers: how many.

    Raises:
        ConfigError: there are fewer parameters than servers, or one would have none to train.
    """
    whole = Weights(copy.deepcopy(model))
    entries = [entry for entry in whole.entries if entry.offset < whole.trained]
    if not 1 <= servers <= max(1, len(entries)):
        raise ConfigError(
            f"the parameters cannot be split over so many servers (servers: {servers}, parameter tensors: "
            f"{len(entries)}); a tensor stays whole, so take 1 to {max(1, len(entries))}"
        )
    offsets = [*(entry.offset for entry in entries), whole.trained]
    sizes = [float(after - before) for before, after in pairwise(offsets)]
    cuts = balance(sizes, servers, range(1, len(entries)), lambda cut: 0.0, lambda start, stop: True)
    assert cuts is not None
    bounds = [0, *cuts, len(entries)]
    shards = tuple(
        _shard(model, [entry.name for entry in entries[a:b]], offsets[a], offsets[b], first=not a)
        for a, b in pairwise(bounds)
    )
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for number, shard in enumerate(shards):
        if trained.isdisjoint(shard.names):
            raise ConfigError(
                f"a server would have no parameters to train (server: {number}, servers: {servers}); take fewer servers"
            )
    return shards


def _shard(model: nn.Module, names: Sequence[str], start: int, stop: int, *, first: bool) -> Shard:
    layout = StageLayout.of(Weights(shard_of(model, names, buffers=first)))
    return Shard(start, stop, layout, tuple(names))


def shard_of(model: nn.Module, names: Sequence[str], *, buffers: bool) -> nn.Module:
    """Return a copy of a model that has some of its parameters only, under their own names.

    Args:
        model: left as it is.
        names: of parameters.
        buffers: whether it has all buffers, or none.
    """
    own = copy.deepcopy(model)
    kept = {id(p) for name, p in own.named_parameters() if name in names}
    for module in own.modules():
        for name, parameter in list(module._parameters.items()):
            if id(parameter) not in kept:
                del module._parameters[name]
        if not buffers:
            module._buffers.clear()
    return own
