"""What staleness buys where one of two learners is slow: samples a second of softsync against hardsync.

ResNet-20 on images of CIFAR's shape, 16 a gradient, real processes; learner 1 sleeps after every action until it has
taken three times as long.  Two learners, a server and the observer share the machine.
"""

from functools import partial

from benchmarks.measure import Row, interleave, ratio
from benchmarks.runs import seconds_per_update
from stalegrid import DeviceSettings, ServerSettings

BATCH, GRADIENTS = 16, 240


def run(turns: int) -> Row:
    """Measure both, with the slow learner and without."""
    slow = {"softsync, one learner 3x slower": ("softsync", "1,0=3"), "hardsync, likewise": ("hardsync", "1,0=3")}
    equal = {"softsync, equal learners": ("softsync", None), "hardsync, equal": ("hardsync", None)}
    names = {f"{name}, samples/s": how for name, how in (slow | equal).items()}
    figures = interleave({name: partial(_rate, *how) for name, how in names.items()}, turns)
    soft_slow, hard_slow, soft, hard = figures
    return Row(figures, [ratio(figures, soft_slow, hard_slow, at_least=1.5), ratio(figures, soft, hard)])


def _rate(method: str, slow: str | None) -> float:
    gathered = 2 if method == "hardsync" else 1
    seconds = seconds_per_update(
        "resnet20",
        GRADIENTS // gathered,
        method=method,
        learners=2,
        servers=ServerSettings(softsync=2 if method == "softsync" else None),
        devices=DeviceSettings(slow=slow),
        batch_size=BATCH,
    )
    return gathered * BATCH / seconds
