"""How many samples, how often, drawn how, and read by whom.

Does not know: which samples, what is trained on them.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stalegrid.data.sizes import sizes_of
from stalegrid.data.splits import EVEN
from stalegrid.errors import ConfigError
from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Group):
    """How much is trained.

    Args:
        batch_size: samples of one group in one update, or of one gradient of a learner; one number for each group, such
            as 64,32, where slow ones shall do less.
        epochs: passes over the training data; 10 if left out.  A stream without a length needs updates; a run with it
            counts as one epoch.
        updates: number of updates, instead of epochs.
        until: updates after which the run ends though more are planned; repeats a run that a callback has stopped.
        seed: of everything that is drawn.
        workers: processes that read samples ahead, for each group in each process of the run; as many as a DataLoader
            names if left out, else none.  They change no number.
        test_batch_size: samples that are measured at once; that of a DataLoader if left out, else 125.
        dtype: type to which floating parameters, buffers and data are cast; each keeps its own if left out.
        precision: bf16 for forwards and losses under autocast to bfloat16, with parameters in float32; each operation
            computes in the type of what it is given if left out.
        channels_last: whether parameters of four dimensions, such as those of convolutions, and what convolutions make
            of them lie in memory as torch.channels_last, which is faster where libraries compute so anyway.
        compile: whether torch's compiler makes code of the stages, which then compute the same but for rounding.
        targets: whether the last stage reads the targets itself or the first one reads them with the inputs, once, and
            they travel; if left out, those of a stream travel.
        shapes: of batches that there may be at most, where the model is cut: it is captured for each of them.  If left
            out, those of a collate_fn that knows them, as that of ``pad_to`` does, else one.  If it is more than one
            and nobody knows them, the first epoch is read before the run.  As many again may be those of groups with
            batches of another size, and of the incomplete last batch of an epoch.
        drop_last: whether the samples at the end of an epoch that are too few for an update are left out; if not, they
            are an update of their own.  If left out, as a DataLoader says, else they are.
        split: which samples groups, or learners, have: even, where they share out each epoch; dirichlet=ALPHA, where
            each label is dealt to them in proportions drawn from Dirichlet(ALPHA), such as 0.1; shards=N, where each is
            dealt N shards of the samples in the order of their labels.
    """

    NAME: ClassVar[str] = "training"

    batch_size: int | list[int] = 32
    epochs: float | None = None
    updates: int | None = None
    until: int | None = None
    seed: int = 0
    workers: int | None = None
    test_batch_size: int | None = None
    dtype: Literal["float32", "float64", "bfloat16"] | None = None
    precision: Literal["bf16"] | None = None
    channels_last: bool = False
    compile: bool = False
    targets: Literal["read", "travel"] | None = None
    shapes: int | None = None
    drop_last: bool | None = None
    split: str = EVEN

    def sizes(self, groups: int) -> tuple[int, ...]:
        """Return the samples of each group in one update.

        Args:
            groups: S.

        Raises:
            ConfigError: there are other groups than numbers.
        """
        return sizes_of(self.batch_size, groups)

    @property
    def largest(self) -> int:
        """Samples of the largest batch of any group."""
        return self.batch_size if isinstance(self.batch_size, int) else max(self.batch_size, default=1)

    def check_alike(self, why: str) -> None:
        """Refuse batches of unlike sizes.

        Args:
            why: said with the error.

        Raises:
            ConfigError: there are some.
        """
        if not isinstance(self.batch_size, int) and len(set(self.batch_size)) != 1:
            shown = ",".join(map(str, self.batch_size))
            raise ConfigError(f"{why} (training.batch_size: {shown}); give one number")
