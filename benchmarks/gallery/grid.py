"""The grid of Pham and Ahn, arXiv 2509.05679: groups x stages, the same samples for all, in virtual time too."""

from benchmarks.gallery.entry import ERROR, RATE, Claim, Entry, Figure, Scale, Way, difference, quotient
from benchmarks.gallery.kept import COSTS

_BATCH = 128
_CUTS = {1: "", 2: " --cuts 3", 4: " --cuts 3,6,9"}
_LINKS = f"--costs {COSTS}/convnet.yaml --devices.link 1,1000 --devices.lateral-link 1,1000 --devices.jitter 0.1 "
_RECIPE = (
    "--data cifar10 --lr 0.01 --optimizer.momentum 0.9 --optimizer.weight-decay 5e-4 --schedule one-cycle "
    "--method pham-ahn --output.gap false --output.log-every 100 "
)


def _name(groups: int, stages: int, topology: str = "ring", period: int = 1) -> str:
    shape = f"{groups} x {stages}"
    return shape if groups == 1 else f"{shape}, {topology}, every {period}"


def _panel(stages: int) -> str:
    return f"K = {stages}"


def _ways(batch: int, cuts: dict[int, str]) -> tuple[Way, ...]:
    """Return all shapes."""
    found = []
    for groups in (1, 2, 4):
        for stages, cut in cuts.items():
            shape = f"--groups {groups} --stages {stages} --batch-size {batch // groups}{cut}"
            for topology in ("ring", "complete") if groups == 4 else ("ring",):
                for period in (1, 4) if groups > 1 else (1,):
                    mixing = f" --topology {topology} --mixing.period {period}" if groups > 1 else ""
                    found.append(Way(_name(groups, stages, topology, period), shape + mixing, panel=_panel(stages)))
    return tuple(found)


_LATE = (
    "gradients are up to 2 (K-1) batches late here, which counts for most while the rate is high, and 3 epochs are "
    "short; what was tried for 1 x 4 are the last rows, and a rate of 0.05, with which it was not a number"
)
_APART = (
    "each group follows gradients of its share of the batch, and parameters are averaged, not gradients; what was "
    "tried are the rows with all groups joined, and with rarer averaging"
)


def _eased(batch: int, cuts: dict[int, str]) -> tuple[Way, ...]:
    """Return what was tried for four stages that learn less than one device does."""
    shape = f"--groups 1 --stages 4 --batch-size {batch}{cuts[4]}"
    return (
        Way("1 x 4, stability-rate", f"{shape} --corrections stability-rate", panel=_panel(4)),
        Way("1 x 4, a third of the rate", f"{shape} --lr 0.0033", panel=_panel(4)),
    )


def _no_worse(groups: int, stages: int) -> Claim:
    says = f"{groups} x {stages}, every update on a ring: no error beyond that of one device, same samples"
    ways = _name(groups, stages), _name(1, 1)
    return Claim(says, ways, difference(ERROR.key), at_most=0.0, unit=" points", tried=_APART if stages == 1 else _LATE)


def _faster(groups: int, stages: int) -> Claim:
    says = f"{groups} x {stages}, every update on a ring: more samples a second than one device"
    return Claim(says, (_name(groups, stages), _name(1, 1)), quotient(RATE.key), at_least=1.0, unit=" times")


_TWO = "2 x K has no rows of its own for complete, since of two groups a ring is complete"

_SHAPES = ((2, 1), (4, 1), (1, 2), (1, 4), (2, 2), (4, 2), (2, 4), (4, 4))

ENTRY = Entry(
    name="grid",
    title="The grid: data parallelism and fully decoupled backpropagation together",
    source="Pham and Ahn, arXiv 2509.05679",
    published=(
        "Its abstract says that the method converges to critical points, trains more data in each iteration without "
        "locking, and so faster, and shows it on CIFAR-10. Its figures could not be read; held against are these words."
    ),
    figures=(ERROR, RATE, Figure("consensus_distance", "consensus distance at the end", ".1e")),
    scales={
        "smoke": Scale(
            "digits and a small network, six updates: it runs",
            "--data digits --model mlp --lr 0.05 --method pham-ahn --updates 6",
            _ways(32, dict.fromkeys((1, 2, 4), "")),
            seeds=1,
        ),
        "cpu": Scale(
            f"a network of three convolutions, 3 epochs of {_BATCH} samples an update over all groups, one cycle up "
            "to a rate of 0.01 (at 0.05, which was tried first, 1 x 4 was not a number after 258 updates); forward and "
            "backward in bfloat16; virtual time on devices as profiled on this machine, links of 1 ms and 1 Gbit/s, "
            f"jitter 0.1; {_TWO}",
            _RECIPE + _LINKS + "--model convnet --epochs 3 --precision bf16",
            _ways(_BATCH, _CUTS) + _eased(_BATCH, _CUTS),
        ),
        "full": Scale(
            f"ResNet-20, 160 epochs; no virtual time; {_TWO}",
            _RECIPE + "--model resnet20 --epochs 160 --output.evaluate-every 10",
            _ways(_BATCH, dict.fromkeys((1, 2, 4), "")),
        ),
    },
    claims=(*(_no_worse(*shape) for shape in _SHAPES), *(_faster(*shape) for shape in _SHAPES)),
    chance=90.0,
)
