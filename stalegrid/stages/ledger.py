"""What a unit's updates are made of: the version each batch was forwarded at, and how far the weights moved since.

Does not know: gradients, optimizers, other units.

Staleness is taken from version stamps, at every update, and held against the declared bound.  The gap
``||w_now - w_forward||`` needs the old weights: for every batch that would be a copy for every version in flight.  So
it is measured for one batch at a time, all of them in turn, with one copy, or none where the view holds the version.
"""

from torch import Tensor

from stalegrid.errors import StalenessExceeded
from stalegrid.objects import State
from stalegrid.observe import Loss, Tally
from stalegrid.stages.site import Site


class Ledger:
    """Notes forwards and updates of one unit, and passes what it finds to a tally.

    Args:
        site: of the unit.
        tally: what is reported.
        measure_gap: whether to measure the gap, of the batches of an update in turn.
        hold_all: whether corrections read the weights of every batch's forward.
    """

    def __init__(self, site: Site, tally: Tally, *, measure_gap: bool, hold_all: bool) -> None:
        self._unit = site.unit
        self._bound = site.bound
        self._steady = site.schedule.begins + site.bound  # the first update that is as stale as any
        self._micro_batches = site.schedule.micro_batches
        self._weights = site.weights
        self._versions = site.versions
        self._tally = tally
        # What is not stale has not moved: its gap is 0 by definition.
        self._measure_gap = measure_gap and site.bound > 0 and site.weights.trained > 0
        self._hold_all = hold_all
        self._forwarded: dict[int, int] = {}  # version of each batch that no update has used
        self._losses: dict[int, Loss] = {}
        self._sample: int | None = None  # the batch whose gap is measured next
        self._samples = 0  # measured so far

    def forwarded(self, batch: int, version: int, loss: Loss | None) -> None:
        """Note that a batch was forwarded at a version."""
        self._forwarded[batch] = version
        if loss is not None:
            self._losses[batch] = loss
        if self._measure_gap and self._sample is None and self._is_turn(batch):
            self._sample = batch
        if self._holds(batch):
            self._versions.hold(version)

    def oldest(self, batches: list[int]) -> int:
        """Return the oldest version that any of the batches was forwarded at."""
        return min(self._forwarded[b] for b in batches)

    def updating(self, batches: list[int]) -> None:
        """Note that the present version is about to be changed by the gradients of some batches.

        Raises:
            StalenessExceeded: one is staler than declared.
        """
        now = self._weights.version
        for batch in batches:
            version = self._forwarded.pop(batch)
            if now - version > self._bound:
                raise StalenessExceeded(
                    f"a gradient is staler than declared (unit: {self._unit}, batch: {batch}, version: {now}, "
                    f"staleness: {now - version}, bound: {self._bound})"
                )
            # What trains nothing is never stale: its weights of the forward are those of now.
            stamp = version if self._weights.trained else now
            self._tally.used(batch, now, stamp, self._losses.pop(batch, None))
            if batch == self._sample:
                self._tally.moved(self._gap(version))
            if self._holds(batch):
                # Only now: the gap above has read it.
                self._versions.release(version)
            if batch == self._sample:
                self._sample, self._samples = None, self._samples + 1

    def state_dict(self) -> State:
        """Return the versions and losses of batches in flight, and whose gap is measured."""
        return {
            "forwarded": self._forwarded,
            "losses": {batch: loss.plain() for batch, loss in self._losses.items()},
            "sample": self._sample,
            "samples": self._samples,
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._forwarded, self._sample, self._samples = state["forwarded"], state["sample"], state["samples"]
        self._losses = {batch: Loss(*values) for batch, values in state["losses"].items()}

    def _is_turn(self, batch: int) -> bool:
        """Return whether a batch is of the steady state, and the one of its update whose turn it is."""
        update, place = divmod(batch, self._micro_batches)
        return update >= self._steady and place == self._samples % self._micro_batches

    def _holds(self, batch: int) -> bool:
        return self._hold_all or batch == self._sample

    def _gap(self, version: int) -> Tensor:
        trained = self._weights.trained
        moved = self._weights.flat[:trained] - self._versions.read(version)[:trained]
        # In double precision: a sum of millions of small squares.
        return moved.double().square().sum().sqrt()
