"""When checkpoints are written, and how many are kept.

Does not know: what is in one.
"""

from dataclasses import dataclass
from typing import ClassVar

from stalegrid.errors import ConfigError
from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(Group):
    """When the state of a run is saved, so that it can go on to the bit.

    Args:
        every: updates from one checkpoint to the next.
        minutes: or minutes, at the next version that all units can agree on.
        keep: how many whole ones stay.

    Raises:
        ConfigError: a number is too small.
    """

    NAME: ClassVar[str] = "checkpoint"
    OWN: ClassVar[str] = "every"

    every: int | None = None
    minutes: float | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("every", self.every), ("minutes", self.minutes), ("keep", self.keep)):
            if value is not None and not value > 0:
                raise ConfigError(f"checkpoints need a positive number (checkpoint.{name}: {value})")

    @property
    def wanted(self) -> bool:
        """Whether there are any."""
        return self.every is not None or self.minutes is not None
