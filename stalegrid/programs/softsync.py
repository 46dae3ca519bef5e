"""Who is answered when: n-softsync with a bound on the staleness of every gradient.

Does not know: tensors, messages, time, in which order gradients come.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from stalegrid.errors import ConfigError


class Delivery(NamedTuple):
    """A gradient of a learner was next, or the learner was found to be gone."""

    learner: int
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """When servers update, and whom they answer.

    Args:
        learners: lambda.
        gather: c, gradients that an update averages over.
        bound: staleness that no gradient exceeds; None for none.
    """

    learners: int
    gather: int
    bound: int | None = None


class Turns:
    """What a server knows of the learners: who computes on which version, who waits for weights.

    A learner is answered only if that lets no gradient exceed the bound, in whichever order those that are being
    computed arrive: they and its own must fit into the updates until the oldest of them would be too stale,

        computing + 1 <= (oldest + bound - version) c + c - gathered.

    When nobody computes this holds for somebody, so nobody waits for ever.  Learners are held back before they compute,
    so no finished gradient is ever held or thrown away.  A bound of 0 with c = learners is hardsync, up to the order of
    its sums.

    Args:
        rules: of the run.

    Attributes:
        version: updates so far.
        computing: version that each learner was given whose gradient is to come.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._gathered = 0
        self._waiting = deque(range(rules.learners))
        self.version = 0
        self.computing: dict[int, int] = {}

    def answer(self) -> list[int]:
        """Return the learners that are given the present version now, and count them among those that compute."""
        answered: list[int] = []
        # In the order in which they came: room for one is room for any.
        while self._waiting and self._fits():
            answered.append(self._waiting.popleft())
            self.computing[answered[-1]] = self.version
        return answered

    def take(self, number: int) -> bool:
        """Take the gradient of a learner; return whether that completes an update."""
        del self.computing[number]
        self._waiting.append(number)
        self._gathered = (self._gathered + 1) % self._rules.gather
        self.version += not self._gathered
        return not self._gathered

    def lose(self, number: int) -> None:
        """Count a learner no more.

        Raises:
            ConfigError: it was not counted.
        """
        if self.computing.pop(number, None) is None:
            if number not in self._waiting:
                raise ConfigError(f"there is no learner {number} to lose; this order is of no such run")
            self._waiting.remove(number)

    @property
    def gone(self) -> set[int]:
        """The learners that are counted no more."""
        return {*range(self._rules.learners)} - {*self.computing, *self._waiting}

    @property
    def deserted(self) -> bool:
        """Whether no learner is left."""
        return not self.computing and not self._waiting

    def _fits(self) -> bool:
        rules = self._rules
        if rules.bound is None:
            return True
        oldest = min(self.computing.values(), default=self.version)
        room = (oldest + rules.bound - self.version + 1) * rules.gather - self._gathered
        return len(self.computing) + 1 <= room
