"""Which evaluation was the best so far.

Does not know: what is measured, what is kept of it.
"""

import math

from stalegrid.observe.records import Record


class Best:
    """The best evaluation by one of its numbers; of equal ones the first.

    Args:
        asked: the name of the number in records, such as ``test_accuracy``, with a minus where the smallest is best.
        least: by how much a better one must be better.

    Attributes:
        name: of the number.
        largest: whether the largest is best.
        record: version and number of the best so far; empty before the first.
    """

    def __init__(self, asked: str, least: float = 0.0) -> None:
        self.name = asked.removeprefix("-")
        self.largest = self.name == asked
        self.record: Record = {}
        self._least = least

    def takes(self, record: Record) -> bool:
        """Take an evaluation, and return whether it is better than all before."""
        value = record.get(self.name)
        if value is None or math.isnan(value):
            return False
        so_far = self.record.get(self.name)
        # Asked so that two infinities, whose difference is no number, are no gain.
        if so_far is not None and not (value - so_far if self.largest else so_far - value) > self._least:
            return False
        self.record = {"version": record["version"], self.name: value}
        return True
