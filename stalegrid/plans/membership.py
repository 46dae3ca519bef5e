"""Groups that a run has lost on its way, and those that came back.

Does not know: how one was lost, who notices, who asks for its return.

A loss is recorded like a delivery: at which version it happened is all that the network, or a machine, has decided.
From that version on the run is one of the groups that are there: their neighbours' weights close around the place, and
what the group would have trained of every update is left out.  A return is recorded likewise: at its version the group
begins with the state of another one and with nothing in flight, and from then on it trains what is its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stalegrid.programs import Back

LOST, RETURNED = "lost_groups", "returned_groups"
"""What a summary or a manifest calls them."""


@dataclass(frozen=True, slots=True)
class LostGroup:
    """A group that is gone.

    Args:
        group: which.
        version: the last that it has in common with the others.
        why: as it was found out.
    """

    group: int
    version: int
    why: str


@dataclass(frozen=True, slots=True)
class ReturnedGroup:
    """A group that came back.

    Args:
        group: which.
        version: from which on it is there.
        donor: the group whose state it then has.
    """

    group: int
    version: int
    donor: int


@dataclass(frozen=True)
class Membership:
    """Which groups a run is without, by and by.

    Args:
        lost: in the order of their versions.
        returned: likewise; each follows a loss.
    """

    lost: tuple[LostGroup, ...] = ()
    returned: tuple[ReturnedGroup, ...] = ()

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Membership":
        """Return what a summary or a manifest says; see :meth:`plain`."""
        return cls(
            tuple(LostGroup(**loss) for loss in plain.get(LOST, ())),
            tuple(ReturnedGroup(**back) for back in plain.get(RETURNED, ())),
        )

    def plain(self) -> dict[str, Any]:
        """Return it as a file has it, with nothing where nothing happened."""
        found = {LOST: [asdict(loss) for loss in self.lost], RETURNED: [asdict(back) for back in self.returned]}
        return {name: some for name, some in found.items() if some}

    def losing(self, groups: Iterable[int], version: int, why: str) -> "Membership":
        """Return the same with groups that are lost at a version."""
        return Membership((*self.lost, *(LostGroup(group, version, why) for group in groups)), self.returned)

    def returning(self, donors: Mapping[int, int], version: int) -> "Membership":
        """Return the same with groups that come back at a version, each with the state of another one."""
        back = (ReturnedGroup(group, version, donor) for group, donor in donors.items())
        return Membership(self.lost, (*self.returned, *back))

    def until(self, version: int) -> "Membership":
        """Return what happened up to a version, it included."""
        return Membership(
            tuple(loss for loss in self.lost if loss.version <= version),
            tuple(back for back in self.returned if back.version <= version),
        )

    @property
    def versions(self) -> list[int]:
        """Those at which something happened, ascending."""
        return sorted({loss.version for loss in self.lost} | {back.version for back in self.returned})

    @property
    def gone(self) -> frozenset[int]:
        """The groups that are not there in the end."""
        lost, back = ([change.group for change in some] for some in (self.lost, self.returned))
        return frozenset(group for group in lost if lost.count(group) > back.count(group))

    @property
    def back(self) -> dict[int, Back]:
        """The groups that are there again in the end, and how they came back last."""
        return {b.group: Back(b.version, b.donor) for b in self.returned if b.group not in self.gone}

    def left_out(self, version: int, sizes: Sequence[int]) -> int:
        """Return how many samples up to a version were left out with groups that were not there.

        Args:
            version: from 0.
            sizes: samples of each group's batch.
        """
        out = 0
        for group in {loss.group for loss in self.lost}:
            ends = [back.version for back in self.returned if back.group == group]
            losses = [loss.version for loss in self.lost if loss.group == group]
            for number, begin in enumerate(losses):
                end = ends[number] if number < len(ends) else version
                out += sizes[group] * max(0, min(end, version) - begin)
        return out


ALL = Membership()
"""All groups are there, from the beginning on."""
