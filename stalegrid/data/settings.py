"""How many samples, how often, drawn how.

Does not know: which samples, what is trained on them.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Group):
    """How much is trained.

    Args:
        batch_size: samples of one group in one update, or of one gradient of a learner.
        epochs: passes over the training data; 10 if left out.
        updates: number of updates, instead of epochs.
        until: updates after which the run ends though more are planned; repeats a run that a callback has stopped.
        seed: of everything that is drawn.
        dtype: type to which floating parameters, buffers and data are cast; each keeps its own if left out.
    """

    NAME: ClassVar[str] = "training"

    batch_size: int = 32
    epochs: float | None = None
    updates: int | None = None
    until: int | None = None
    seed: int = 0
    dtype: Literal["float32", "float64", "bfloat16"] | None = None
