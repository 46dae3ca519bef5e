"""How messages travel from one device to another.

Does not know: devices, messages, programs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stalegrid.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Link:
    """How messages travel.

    Args:
        latency: milliseconds from the last byte sent to its arrival.
        mbits: bandwidth in Mbit/s; infinite for none that counts.
    """

    latency: float = 0.0
    mbits: float = math.inf

    def __post_init__(self) -> None:
        if not (0 <= self.latency < math.inf and self.mbits > 0):
            raise ConfigError(
                f"a link has a latency of 0 ms or more and a bandwidth above 0 Mbit/s (latency: {self.latency}, "
                f"bandwidth: {self.mbits})"
            )

    @classmethod
    def parse(cls, numbers: Sequence[float] | None) -> "Link":
        """Return the link of the numbers that a user wrote: latency, or latency and bandwidth.

        Raises:
            ConfigError: they have no meaning.
        """
        if numbers is not None and len(numbers) not in (1, 2):
            raise ConfigError(f"a link is LATENCY or LATENCY,BANDWIDTH in ms and Mbit/s (link: {list(numbers)})")
        return cls(*numbers or ())

    def plain(self) -> list[float]:
        """Return the numbers that :meth:`parse` takes."""
        return [self.latency] if self.mbits == math.inf else [self.latency, self.mbits]

    def occupied(self, nbytes: int) -> int:
        """Return for how many nanoseconds a message keeps its sender's port busy."""
        return round(nbytes * 8000 / self.mbits)
