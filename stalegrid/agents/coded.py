"""An agent whose messages are coded: it sends and takes tensors, and what travels is smaller.

Does not know: what agents compute, which codecs there are, how messages travel.

With feedback, e the sum of what was lost on an edge so far, a message x travels as::

    q = encode(x + e)         e <- x + e - decode(q)

What is lost of a number that is not finite is no number, and is let go.  A tensor that stands for nothing, such as a
gradient that there is none, leaves e as it is, since nobody will read it.

Batches in flight are forwarded again where a run goes on, from what had arrived, and nothing of them is sent again;
what was under way is kept as it travels.  So e, which is state like all else, counts every message once.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from stalegrid.agents.agent import Agent, Around
from stalegrid.codecs import Coding
from stalegrid.objects import State
from stalegrid.programs import Action, Edge, Message

Tensors = tuple[Tensor, ...]

Arrives = Callable[[Message], None]
"""What a sender does with a message of its own as it will arrive."""


class Coded(Around):
    """An agent around another one that sends and takes messages as they are.

    Args:
        agent: that does the work.
        coding: edge -> how its messages are coded; None where they travel as they are.
        arrives: what the agent does with what it has sent, as it arrives, where its edge is echoed; None where none is.
    """

    def __init__(self, agent: Agent, coding: Callable[[Edge], Coding | None], arrives: Arrives | None) -> None:
        super().__init__(agent)
        self._coding = cache(coding)
        self._arrives = arrives
        self._left: dict[str, dict[int, Tensor]] = {}  # e by edge and place of the tensor

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        made = self.agent.step(action, [self._decoded(message) for message in inbox])
        coded: dict[tuple[object, ...], Tensors] = {}
        return [self._encoded(message, coded) for message in made]

    def state_dict(self) -> State:
        """Return the state of the agent within, and what was not sent."""
        return {**self.agent.state_dict(), "unsent": self._left}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._left = state.get("unsent", {})
        self.agent.load_state_dict(state)

    def _decoded(self, message: Message) -> Message:
        coding = self._coding(message.tag.edge)
        if coding is None:
            return message
        return Message(message.tag, message.version, coding.decode(message.tensors))

    def _encoded(self, message: Message, coded: dict[tuple[object, ...], Tensors]) -> Message:
        """Return a message as it travels; what was coded for one target need not be for another."""
        coding = self._coding(message.tag.edge)
        if coding is None:
            return message
        key = coding, *map(id, message.tensors)
        if key in coded:
            return Message(message.tag, message.version, coded[key])
        vectors = self._due(message, coding)
        travels = Message(message.tag, message.version, coding.encode(message.tensors, vectors))
        if coding.feedback or coding.echoed:
            arriving = self._decoded(travels)
            if coding.feedback:
                self._keep(message, coding, vectors, arriving)
            if coding.echoed:
                assert self._arrives is not None
                self._arrives(arriving)
        if not coding.feedback:
            coded[key] = travels.tensors
        return travels

    def _due(self, message: Message, coding: Coding) -> dict[int, Tensor]:
        """Return what a message says, with what former ones did not."""
        vectors = coding.vectors(message.tensors)
        if coding.feedback and (left := self._left.get(str(message.tag.edge))):
            absent = coding.absent(message.tensors)
            return {i: vector if i in absent else vector + left[i] for i, vector in vectors.items()}
        return vectors

    def _keep(self, message: Message, coding: Coding, vectors: dict[int, Tensor], arriving: Message) -> None:
        left = self._left.setdefault(str(message.tag.edge), {i: torch.zeros_like(v) for i, v in vectors.items()})
        absent, arrived = coding.absent(message.tensors), coding.vectors(arriving.tensors)
        for i in vectors.keys() - absent:
            lost = vectors[i] - arrived[i]
            left[i] = lost.masked_fill_(~lost.isfinite(), 0.0)
