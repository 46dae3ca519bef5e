"""When the state of all agents is saved, and how a run goes on from there.

Does not know: tensors, files, who asks for it.

At version n, once an agent has done all that belongs to its first n updates, P(n) saves it::

    [K(b)] F(b)          a batch whose backward comes after the next save: its forward is to be made again
    ... U(n-1) ... P(n)  save

A unit saves when it is there and waits for nobody.  The saves of one version are a consistent cut all the same, since
what an agent takes before its own was sent before that of the sender; what was sent before and is taken after, messages
that cross the cut, is saved by the sender.  A run that goes on from version n is the same program without what lies
before::

    O(n)                 load: the agent is as it was, and sends again what crosses the cut
    I(b)                 revive: forward a batch in flight again, as it was forwarded, for its graph
    ...                  all that comes after P(n)

A run that is to leave ends after a save: Z(n) takes what is still under way, so that nobody who has sent it waits.

So engines resume a run as they begin one, and a cut is a matter of the program: where a process lives, or how many
there are, may be another then.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stalegrid.programs.actions import Action, Kind, Tag

SAVE, LEAVE = 2, 4
"""What may be asked of a run that goes on, added up: that all agents save their state, and that they then leave."""


@dataclass(frozen=True, slots=True)
class Saves:
    """When a run is saved, and from where it goes on.

    Args:
        every: updates from one save to the next; None for none that are planned.
        since: version from which the run goes on; 0 for its beginning.
    """

    every: int | None = None
    since: int = 0

    def planned(self, version: int) -> bool:
        """Return whether a version is saved in any case."""
        return version == self.since or (self.every is not None and version % self.every == 0)


def resumed(
    actions: Iterable[Action], since: int, crosses: Callable[[Tag], bool], flight: Iterable[int]
) -> Iterator[Action]:
    """Yield an agent's actions from a save on.

    Args:
        actions: of the agent, from the first.
        since: version of the save.
        crosses: message -> whether it crosses the cut.
        flight: batches that the agent has in flight there.
    """
    left = iter(actions)
    sent: list[Tag] = []
    for action in left:
        if action.kind is Kind.SAVE and action.index == since:
            break
        sent += [tag for tag in action.sends if crosses(tag)]
    yield Action(Kind.LOAD, since, sends=tuple(sent))
    for batch in flight:
        yield Action(Kind.REVIVE, batch)
    yield from left
