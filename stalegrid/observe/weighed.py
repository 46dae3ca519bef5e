"""The mean loss of batches of several sizes.

Does not know: who computes losses, who reports them.

Means over unequally many samples are weighed by how many there are, as the largest batch weighs 1.  So where all are
equally large, nothing is multiplied and nothing rounded, and a reported loss is to the bit that of a plain loop.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Weighed:
    """Losses of batches, added up.

    Sums of losses and of what they count need no weights; they are added up as if all batches were of one size.

    Attributes:
        totals: counts and losses, by the samples of a batch.
    """

    totals: dict[int, tuple[float, float]] = field(default_factory=dict)

    def add(self, loss: float, count: float, samples: int | None) -> None:
        """Take in the loss of a batch.

        Args:
            loss: a mean, or a sum.
            count: 1 of a mean; what is counted in a sum.
            samples: that a mean is over; None of a sum.
        """
        counts, losses = self.totals.get(samples or 0, (0.0, 0.0))
        self.totals[samples or 0] = counts + count, losses + loss

    def total(self) -> tuple[float, float]:
        """Return what all batches count, and the sum of their losses: divided, the mean loss."""
        weights = {samples: samples / max(self.totals) if samples else 1.0 for samples in self.totals}
        counts = sum(weights[samples] * counts for samples, (counts, _) in self.totals.items())
        return counts, sum(weights[samples] * losses for samples, (_, losses) in self.totals.items())
