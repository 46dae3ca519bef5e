"""What units show of themselves for a diagnosis, and who makes one of it.

Does not know: what a diagnosis says, engines.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stalegrid.objects import State
from stalegrid.observe import Record
from stalegrid.programs import Message, Unit


class Look(NamedTuple):
    """What a unit shows at a version."""

    vector: Tensor
    """Its parameters and running statistics."""
    counters: Tensor
    """Its buffers of whole numbers."""
    rate: float
    """Of the update that led to the version."""

    @classmethod
    def of(cls, message: Message) -> "Look":
        """Read it from a message."""
        vector, counters, rate = message.tensors
        return cls(vector, counters, float(rate))

    def kept(self, device: torch.device) -> "Look":
        """Return a copy of it on a device, for longer than a message is there."""
        return Look(self.vector.to(device, copy=True), self.counters.to(device, copy=True), self.rate)


class Diagnosing(Protocol):
    """Makes diagnoses."""

    def step(self, version: int, looks: Mapping[Unit, Look]) -> Record | None:
        """Take what units show at a version, and return the diagnosis where it is to be diagnosed."""

    def state_dict(self) -> State:
        """Return what is needed to go on from here."""

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
