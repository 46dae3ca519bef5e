import math
import re

import pytest

from stalegrid.errors import ConfigError
from stalegrid.timing.links import Link


@pytest.mark.parametrize(
    ("latency", "mbits"), [(-1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (0.0, 0.0), (0.0, -5.0), (0.0, math.nan)]
)
def test_a_link_that_has_no_meaning_is_refused(latency: float, mbits: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"(latency: {latency}, bandwidth: {mbits})")):
        Link(latency, mbits)


def test_a_message_keeps_a_port_busy_for_its_bits_over_the_bandwidth() -> None:
    assert Link(9.0).occupied(10**12) == 0
    assert Link(0.0, 100.0).occupied(0) == 0
    assert Link(0.0, 8.0).occupied(1) == 1000  # 8 bits at 8 bits a microsecond
    assert Link(0.0, 100.0).occupied(1_000_000) == 80_000_000
    assert Link(0.0, 16_000.0).occupied(3) == 2  # 1.5 ns


@pytest.mark.parametrize("numbers", [[1.5], [0.0, 100.0], [2.5, 0.5]])
def test_a_link_is_written_as_it_is_read(numbers: list[float]) -> None:
    assert Link.parse(numbers).plain() == numbers
    assert Link.parse(None).plain() == [0.0]
