"""Groups that a run has lost on its way.

Does not know: how one was lost, who notices.

A loss is recorded like a delivery: at which version it happened is all that the network, or a machine, has decided.
From that version on the run is one of the groups that are left: their neighbours' weights close around the place, and
what the group would have trained of every update is left out.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stalegrid.written import COUNT, TEXT

SHAPE = [{"group": COUNT, "version": COUNT, "why": TEXT}]
"""Of losses in a file."""


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

    def plain(self) -> dict[str, Any]:
        """Return it as a file has it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "LostGroup":
        """Undo :meth:`plain`."""
        return cls(int(plain["group"]), int(plain["version"]), str(plain["why"]))
