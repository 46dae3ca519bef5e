"""``channels_last: true`` over ResNet-20 as it is, in a plain loop and in two stages: speed, and equal bits."""

from benchmarks.measure import Row
from benchmarks.precision import changed


def run(turns: int) -> Row:
    """Measure samples a second."""
    return changed(turns, "channels last", "channels-last", {"channels_last": True}, ["resnet20"])
