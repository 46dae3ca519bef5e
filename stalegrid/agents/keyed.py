"""What holds for every action of every agent: it draws by a key of its own, and a sample that fails names itself.

Does not know: what actions do, engines.
"""

from collections.abc import Callable, Iterable, Sequence

import torch

from stalegrid.agents.agent import Agent, Around
from stalegrid.errors import DataError, SampleError
from stalegrid.programs import Action, Kind, Message, Unit
from stalegrid.seeds import drawing, key

PURPOSES = {
    Kind.FORWARD: "forward",
    Kind.RECOMPUTE: "forward",
    Kind.REVIVE: "forward",
    Kind.BACKWARD: "backward",
    Kind.UPDATE: "update",
    Kind.TAKE: "take",
    Kind.EVALUATE: "evaluate",
}
"""What actions that run a user's code draw for; a second forward draws what the first has drawn."""


class Keyed(Around):
    """An agent whose draws are a function of (seed, kind of action, unit, index of the action).

    The global generators are set before each action and not put back after it, which would take longer than the
    actions of a small model: whoever runs agents in a user's process does that once, with
    :func:`stalegrid.seeds.kept`.  Setting all three took 6 to 8 microseconds, timed by hand; saving NumPy's state takes
    longer than the forward of a small layer.

    Args:
        agent: that does the work.
        unit: which.
        device: that it computes on.
        seed: of the run.
    """

    def __init__(self, agent: Agent, unit: Unit, device: torch.device, seed: int) -> None:
        super().__init__(agent)
        self._unit = unit
        self._device = device
        self._seed = seed

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`.

        Raises:
            SampleError: a sample cannot be read.
        """
        if (purpose := PURPOSES.get(action.kind)) is not None:
            key(self._device, self._seed, purpose, self._unit.group, self._unit.stage, action.index)
        try:
            return self.agent.step(action, inbox)
        # The run has begun: what is an error of configuration before it is one of training now.
        except DataError as problem:
            raise SampleError(str(problem)) from problem


def keyed(build: Callable[[Unit], Agent], units: Iterable[Unit], device: torch.device, seed: int) -> dict[Unit, Agent]:
    """Build agents whose every draw, while they are built too, has a key of its own.

    Args:
        build: unit -> its agent.
        units: which, in the order they will be stepped.
        device: that they compute on.
        seed: of the run.

    Returns:
        The agents by unit, in the same order.
    """

    def one(unit: Unit) -> Agent:
        with drawing(device, seed, "build", unit.group, unit.stage):
            return Keyed(build(unit), unit, device, seed)

    return {unit: one(unit) for unit in units}
