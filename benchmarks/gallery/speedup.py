"""Staleness-aware asynchronous SGD, Zhang et al., arXiv 1511.05950: how fast 30 learners are."""

from pathlib import Path

from benchmarks.gallery.entry import RATE, Claim, Entry, Record, Scale, Value, Way, quotient
from benchmarks.gallery.kept import COSTS
from stalegrid.timing.costs import CostTable

_METHODS = {
    "hardsync": "--method hardsync",
    "n=1": "--method softsync --servers.softsync 1",
    "n=30": "--method softsync --servers.softsync 30",
}
_DEVICES = (
    "--learners 30 --data.augment false --devices.link 0.1,10000 --output.evaluate-every 0 --output.log-every 500"
)
_CIFAR = f"--data cifar10 --model convnet --lr 0.001 --optimizer.momentum 0.9 --precision bf16 {_DEVICES} "


def _table(batch: int) -> Path:
    return COSTS / f"convnet-{batch}.yaml"


def _ways(batch: int, epochs: float, servers: int = 4, jitter: float = 0.1) -> tuple[Way, ...]:
    how = (
        f"--batch-size {batch} --epochs {epochs} --costs {_table(batch)} --servers {servers} --devices.jitter {jitter}"
    )
    return tuple(Way(_name(method, batch, servers, jitter), f"{what} {how}") for method, what in _METHODS.items())


def _name(method: str, batch: int, servers: int = 4, jitter: float = 0.1) -> str:
    return f"{method}, batch {batch}, {servers} servers, jitter {jitter}"


def _alone(batch: int) -> Value:
    """Return a value: how many times as many samples there are as one undisturbed device would compute by itself."""

    def times(found: Record) -> float:
        costs = CostTable.read(_table(batch))
        (part,) = costs.parts
        return float(found[RATE.key]) * (part.forward + part.backward + part.update) / 1000 / costs.batch_size

    return times


def _faster(asynchronous: str, batch: int, tried: str = "") -> Claim:
    says = f"{asynchronous} is 1.5 times as fast as hardsync, batch {batch}"
    ways = (_name(asynchronous, batch), _name("hardsync", batch))
    return Claim(says, ways, quotient(RATE.key), at_least=1.5, unit=" times", tried=tried)


def _learners(method: str, batch: int, tried: str = "") -> Claim:
    says = f"{method} is at least 22 times as fast as one learner without a server, batch {batch}"
    return Claim(says, (_name(method, batch),), _alone(batch), at_least=22.0, unit=" times", tried=tried)


_BUSY = (
    "a gradient is computed sooner than the server of the largest tensor, more than half of all bytes, has taken in "
    "and answered those of 30 learners; more servers, which were tried, change nothing, since no tensor is divided"
)
_ABOUT = "what was published is about so much, and this is within a twentieth of it"
_EQUAL = "learners that are nearly equal hardly wait for each other: rows with twice the jitter are what was tried"

ENTRY = Entry(
    name="speedup",
    title="Staleness-aware SGD: how fast 30 learners are",
    source="Zhang, Gupta, Lian, Liu, arXiv 1511.05950",
    published=(
        "Training with 30 learners is 22 to 28 times as fast as with one, and asynchronous about 50 % faster than "
        "synchronous. How unequal the devices were is not known, so both batch sizes here are held against it."
    ),
    figures=(RATE,),
    scales={
        "smoke": Scale(
            "digits and a small network, 30 updates: it runs",
            f"--data digits --model mlp --batch-size 4 --updates 30 --costs {_table(4)} {_DEVICES}",
            tuple(Way(name, what) for name, what in _METHODS.items()),
            seeds=1,
        ),
        "cpu": Scale(
            "virtual time of 30 learners behind links of 0.1 ms and 10 Gbit/s, costs as profiled on this machine in "
            "float32, an epoch with batches of 128 and a tenth of one with batches of 4; jitter is log-normal",
            _CIFAR,
            (*_ways(4, 0.1), *_ways(4, 0.1, servers=8), *_ways(128, 1), *_ways(128, 1, jitter=0.2)),
        ),
    },
    claims=(
        _faster("n=1", 4, _ABOUT),
        _faster("n=30", 4, _BUSY),
        _faster("n=1", 128, _EQUAL),
        _faster("n=30", 128, _EQUAL),
        _learners("hardsync", 4, f"{_BUSY}; and learners and servers wait for each other in turn"),
        *(_learners(method, 4, _BUSY) for method in ("n=1", "n=30")),
        *(_learners(method, 128) for method in _METHODS),
    ),
)
