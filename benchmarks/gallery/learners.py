"""Staleness-aware asynchronous SGD, Zhang et al., arXiv 1511.05950: 30 learners, n-softsync, both rules."""

from benchmarks.gallery.entry import (
    ERROR,
    RATE,
    Claim,
    Counts,
    Entry,
    Figure,
    Scale,
    Value,
    Way,
    difference,
    itself,
)
from benchmarks.gallery.kept import COSTS

_RECIPE = (
    "--data cifar10 --data.augment false --model convnet --batch-size 4 --lr 0.01 --optimizer.momentum 0.9 "
    "--optimizer.weight-decay 0 --schedule step "
)
_NETWORK = f"--costs {COSTS}/convnet-4.yaml --devices.jitter 0.1 --devices.link 0.1,10000 "
_SPLITS, _RULES = (1, 15, 30), ("inverse", "constant")
_HARD = "hardsync"


def _ways(learners: int, splits: tuple[int, ...], servers: int) -> tuple[Way, ...]:
    many = f"--learners {learners} --servers {servers}"
    soft = [
        Way(f"n={n}, {rule}", f"--method softsync --servers.softsync {n} --method.rule {rule} {many}", _ENDS[rule])
        for rule in _RULES
        for n in splits
    ]
    return (
        Way(_HARD, f"--method hardsync {many}", 18.0),
        *(way if way.name != "n=1, constant" else Way(way.name, way.options) for way in soft),
    )


_ENDS = {"inverse": 18.0, "constant": 90.0}


def _share(splits: int) -> Claim:
    says = f"n={splits}: less than one gradient in 10,000 is more than {2 * splits} updates late"
    return Claim(says, (f"n={splits}, inverse",), itself("tau_above"), at_most=1e-4)


def _apart(splits: int) -> Value:
    """Return a value: by which share of n the mean staleness is not n."""
    return lambda found: abs(float(found["tau"]) - splits) / splits


_SHORT = (
    "training is a tenth as long as published, and by its end has come less far than hardsync's, as the training loss "
    "has it; the constant rate of n=1, which is not lowered for what is late, is what was tried, and comes no further"
)

ENTRY = Entry(
    name="learners",
    title="Staleness-aware SGD: 30 learners and a parameter server",
    source="Zhang, Gupta, Lian, Liu, arXiv 1511.05950",
    published=(
        "On CIFAR-10 with 30 learners, hardsync and every n with the rate over the staleness end at a test error of "
        "about 18 %; with a constant rate n = 15 and 30 stay at 90 %. Gradients are n updates late in the mean."
    ),
    figures=(
        ERROR,
        Figure("train_loss", "training loss", ".3f"),
        RATE,
        Figure("tau", "mean staleness"),
        Figure("tau_max", "largest", ".0f"),
        Figure("tau_above", "share above 2n", ".1e"),
    ),
    scales={
        "smoke": Scale(
            "digits and a small network, 4 learners: it runs",
            "--data digits --model mlp --batch-size 4 --lr 0.01 --schedule step --updates 8",
            _ways(4, (1, 2, 4), 1),
            seeds=1,
        ),
        "cpu": Scale(
            "14 epochs for 140, the rate a tenth after 12 and 13 for 120 and 130; a rate of 0.01 for 0.001, since our "
            "pixels are normalised, not only without their mean, and about a sixtieth as large; four servers, 0.1 ms "
            "and 10 Gbit/s, learners with a jitter of 0.1, costs as profiled on this machine in float32; forward and "
            "backward in bfloat16 and channels last",
            _RECIPE + _NETWORK + "--epochs 14 --schedule.milestones 12,13 --output.log-every 500 --precision bf16 "
            "--training.channels-last true",
            _ways(30, _SPLITS, 4),
        ),
        "full": Scale(
            "140 epochs in float32; else as at scale cpu",
            _RECIPE + _NETWORK + "--epochs 140 --schedule.milestones 120,130 --output.log-every 500",
            _ways(30, _SPLITS, 4),
        ),
    },
    claims=(
        *(
            Claim(
                f"n={n}, inverse ends where hardsync does, to a point",
                (f"n={n}, inverse", _HARD),
                difference(ERROR.key),
                at_most=1.0,
                unit=" points",
                tried=_SHORT,
            )
            for n in _SPLITS
        ),
        *(
            Claim(
                f"n={n}, constant stays at a test error of about 90 %",
                (f"n={n}, constant",),
                itself(ERROR.key),
                at_least=85.0,
                unit=" %",
            )
            for n in (15, 30)
        ),
        *(
            Claim(f"n={n}: the mean staleness is {n}, to a tenth of it", (f"n={n}, inverse",), _apart(n), at_most=0.1)
            for n in _SPLITS
        ),
        *(_share(n) for n in _SPLITS),
    ),
    chance=90.0,
    counts=Counts("tau_counts", "staleness", "updates", tuple(f"n={n}, inverse" for n in _SPLITS)),
)
