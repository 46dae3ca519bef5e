"""Actions of agents and the messages that tie them together, as names; what engines need of any program.

Does not know: which actions are due, tensors, time, ranks.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from stalegrid.programs.grid import Unit


class Kind(Enum):
    """What an action does; the value is its letter in printed programs."""

    FORWARD = "F"
    RECOMPUTE = "G"
    BACKWARD = "B"
    UPDATE = "U"
    SHARE = "S"
    REDUCE = "R"
    MIX = "M"
    REPORT = "L"
    SNAPSHOT = "V"
    COLLECT = "C"
    EVALUATE = "E"
    DIAGNOSE = "N"
    TAKE = "T"
    ANSWER = "A"
    DROP = "D"
    STOP = "X"
    JUDGE = "J"
    HEED = "H"
    KEEP = "K"
    SAVE = "P"
    LOAD = "O"
    REVIVE = "I"
    DISCARD = "Z"

    __hash__ = object.__hash__  # a kind is one object; hashing its name anew at every look-up would take longer


# A tuple, so that edges have an order, by which all processes number their channels alike.
class Edge(NamedTuple):
    """A directed first-in first-out channel between two agents for one sort of message."""

    name: str
    source: Unit
    target: Unit

    def __str__(self) -> str:
        return f"{self.name} {self.source}->{self.target}"


@dataclass(frozen=True, slots=True)
class Tag:
    """Names one message: the ``index`` is its batch, update or version."""

    edge: Edge
    index: int

    def __str__(self) -> str:
        return f"{self.edge} #{self.index}"


@dataclass(frozen=True, slots=True)
class Action:
    """One step of an agent, the messages it needs and the messages it sends, in order."""

    kind: Kind
    index: int
    needs: tuple[Tag, ...] = ()
    sends: tuple[Tag, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind.value}{self.index}"


Hoped = tuple[Tag, ...]
"""Messages any of which may settle what an agent does next.

An agent whose program yields this instead of an action is asked again when something has arrived for it.  That is the
whole difference between a run whose order the network makes and its replay: agents, actions and messages are the same,
so the bits are.
"""
