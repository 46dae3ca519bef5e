"""What it gains to cut a model for devices that are not alike, in virtual time.

Does not know: how the cuts were found, who dates a run.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gain:
    """The same run with two cuts.

    Args:
        cuts: for the devices as they are.
        alike: as for devices that are alike.
        batch: milliseconds a batch with the first.
        alike_batch: milliseconds a batch with the second.
    """

    cuts: list[str]
    alike: list[str]
    batch: float
    alike_batch: float

    def __str__(self) -> str:
        times = "" if not self.batch else f", {self.alike_batch / self.batch:.3g} times as fast"
        return (
            f"cut for unequal devices at {','.join(self.cuts)}: {self.batch:.4g} ms/batch{times} as cut for equal ones "
            f"at {','.join(self.alike)}: {self.alike_batch:.4g} ms/batch (estimated)"
        )
