"""A folder of a user's own work, as the tests of the command line find it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETS = '''\
import dataclasses
import sys

import torch
from torch import nn

import stalegrid
from stalegrid.consensus.mixings import MIXINGS
from stalegrid.methods.published import METHODS
from stalegrid.stages.views.stashed import Stashed


def make(width=16, depth: int = 1, act="relu"):
    between = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), *between, nn.Linear(width, 3))


class Net(nn.Module):
    def __init__(self, *, sizes):
        super().__init__()
        self.first = nn.Linear(8, sizes[0])
        self.second = nn.Linear(sizes[0], sizes[1])
        self.last = nn.Linear(sizes[1], 3)

    def forward(self, x):
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


def any_names(**names):
    return make(**names)


def raises():
    raise RuntimeError("out of\\nluck")  # raised here


def leaves():
    sys.exit(3)


def prints():
    print("a word from the factory")
    return make()


def number():
    return 3


def in_torch():
    return nn.Linear("a", 3)  # called here


THREE = 3


class View(Stashed):
    """The stashed one under a name of its own."""


class Fade(stalegrid.Correction):
    def correct(self, update):
        for p in self.site.weights.trainable():
            if p.grad is not None:
                p.grad *= 0.9**update.staleness


MIXING = next(mixing for mixing in MIXINGS if mixing.name == "adapt-then-combine")
LAZY = dataclasses.replace(
    next(m for m in METHODS if m.name == "pham-ahn"), name="lazy", shape=(1, 2), view="nets:View", mixing="none"
)


class Loss(nn.Module):
    def __init__(self, smooth=0.0):
        super().__init__()
        self.smooth = smooth

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=self.smooth)


def by_names(named_parameters, lr=0.1, fast="last"):
    groups = {True: [], False: []}
    for name, parameter in named_parameters:
        groups[name.startswith(fast)].append(parameter)
    return torch.optim.SGD([{"params": groups[True], "lr": 10 * lr}, {"params": groups[False]}], lr=lr)


def summed():
    return lambda outputs, targets: (nn.functional.cross_entropy(outputs, targets, reduction="sum"), len(targets))


class Early(stalegrid.Callback):
    def on_evaluation(self, record, model):
        return True


MANY = stalegrid.by_name({"*.bias": torch.optim.SGD}, rest=torch.optim.Adam)


def falling(optimizer, by=0.9):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, by)
'''

SETS = """\
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


def make(samples=64, classes=None):
    x = torch.randn(samples, 8)
    found = TensorDataset(x, (x.sum(1) > 0).long())
    if classes is not None:
        found.classes = classes
    return found, TensorDataset(x[:16], (x[:16].sum(1) > 0).long())


def no_test():
    return make()[0], None


def listed():
    return list(make())


def three():
    return (*make(), None)


def nothing():
    return None


def loader():
    return DataLoader(make()[0]), None


def test_loader():
    return make()[0], DataLoader(make()[0])


def tensors():
    return torch.randn(64, 8), torch.zeros(64)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(make()[0])


def stream():
    return Stream(), None


def test_stream():
    return make()[0], Stream()


def unlabelled():
    return TensorDataset(torch.randn(64, 8)), None


def texts():
    found = [(str(i), 0) for i in range(64)]

    class Texts(torch.utils.data.Dataset):
        classes = 2

        def __len__(self):
            return len(found)

        def __getitem__(self, index):
            return found[index]

    return Texts(), None
"""


@contextmanager
def modules_of(folder: Path, **sources: str) -> Iterator[Path]:
    """Write modules to a folder, and forget afterwards that they were imported."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    before = set(sys.modules)
    try:
        yield folder
    finally:
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
                del sys.modules[name]
