"""``channels_last: true`` over ResNet-20 as it is, in a plain loop and in two stages: speed, and equal bits."""

from benchmarks.measure import Row
from benchmarks.precision import changed
from stalegrid import TrainingSettings


def run(turns: int) -> Row:
    """Measure samples a second."""
    settings: dict[str, object] = {"training": TrainingSettings(channels_last=True)}
    return changed(turns, "channels last", "channels-last", settings, ["resnet20"])
