"""Groups of one stage each that exchange as a mixing says, without programs, engines and models."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stalegrid.consensus.matrices import Topology
from stalegrid.consensus.mixing import Exchange, Mixing, Turns
from stalegrid.programs.actions import Action, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import Message
from stalegrid.stages.weights import Weights

Step = Callable[[int, Weights], None]
"""(group, its weights) -> nothing: what an update does."""


class Groups:
    """The exchanges of some groups, and what they exchange.

    Args:
        mixing: theirs.
        topology: likewise.
        modules: of each group, one stage.
        period: updates from one mixing to the next.
    """

    def __init__(self, mixing: Mixing, topology: Topology, modules: list[nn.Module], period: int = 1) -> None:
        turns = Turns(mixing.matrix(topology, len(modules)), period, 0, 1000)
        self.lateral = mixing.lateral(turns)
        self.units = [Unit(s, 0) for s in range(len(modules))]
        self.weights = [Weights(module) for module in modules]
        self.exchanges: list[Exchange] = []
        for unit, weights in zip(self.units, self.weights, strict=True):
            made = mixing.exchange(turns, unit, weights, None)
            assert made is not None
            self.exchanges.append(made)
        self.sent: dict[Tag, Message] = {}

    def round(self, update: int, step: Step, backward: Step = lambda s, weights: None) -> None:
        """Let all groups make an update."""
        self._due([list(self.lateral.opening(unit, update)) for unit in self.units])
        for s, weights in enumerate(self.weights):
            backward(s, weights)
        self._due([list(self.lateral.before_update(unit, update)) for unit in self.units])
        for s, weights in enumerate(self.weights):
            step(s, weights)
            weights.version += 1
        self._due([list(self.lateral.after_update(unit, update)) for unit in self.units])

    def vectors(self) -> Tensor:
        """Return what is trained of every group, (S, numel)."""
        return torch.stack([weights.flat[: weights.trained].clone() for weights in self.weights])

    def _due(self, actions: list[list[Action]]) -> None:
        # All units do their first action, then all their second one: what is needed was sent before.
        for number in range(max(map(len, actions))):
            for exchange, own in zip(self.exchanges, actions, strict=True):
                if number < len(own):
                    inbox = [self.sent.pop(tag) for tag in own[number].needs]
                    self.sent |= {made.tag: made for made in exchange.step(own[number], inbox)}


def random_modules(groups: int, seed: int = 0) -> list[nn.Module]:
    """Return modules of unlike parameters in float64."""
    draw = torch.Generator().manual_seed(seed)
    modules: list[nn.Module] = []
    for _ in range(groups):
        module = nn.Linear(3, 2, dtype=torch.float64)
        for p in module.parameters():
            p.data.copy_(torch.randn(p.shape, generator=draw, dtype=torch.float64))
        modules.append(module)
    return modules


def noisy(seed: int = 1) -> Step:
    """Return an update that changes every group's parameters by noise of its own."""
    draw = torch.Generator().manual_seed(seed)

    def step(s: int, weights: Weights) -> None:
        for p in weights.trainable():
            p.data += torch.randn(p.shape, generator=draw, dtype=torch.float64)

    return step


def still(s: int, weights: Weights) -> None:
    """Change nothing."""
