"""How much units have sent each other, up to a version.

Does not know: what messages consist of, who sends them.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from stalegrid.objects import State
from stalegrid.observe import BYTES_SENT, TOTAL, Record


class Sent:
    """Adds up what is sent for updates.

    Args:
        of: update -> bytes by kind of edge.
        begins: version at which the run begins.
    """

    def __init__(self, of: Callable[[int], Mapping[str, int]], begins: int = 0) -> None:
        self._of = of
        self._version = begins
        self._total = Counter[str]()

    def until(self, version: int) -> Record:
        """Return what a record says of all updates up to a version, which is never below the one before."""
        for update in range(self._version, version):
            self._total.update(self._of(update))
        self._version = max(version, self._version)
        return {BYTES_SENT: {**self._total, TOTAL: self._total.total()}}

    def state_dict(self) -> State:
        """Return how much it was so far."""
        return {"version": self._version, "total": dict(self._total)}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._version, self._total = state["version"], Counter(state["total"])
