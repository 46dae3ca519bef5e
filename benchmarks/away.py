"""``python -m benchmarks.away --data-dir DIR --out FOLDER``: what it costs to be without a group for an epoch.

Four groups train ResNet-20 on CIFAR-10 for three epochs, in processes, undisturbed and with a group that is killed
(kill -9) as soon as the second epoch begins, and comes back (``stalegrid join``) when it ends.  Both are written to
folders of OUT; a run that is there already is not repeated.
"""

import json
import os
import signal
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

import stalegrid
from benchmarks.workloads import optimizer
from stalegrid.checkpoints import FOLDER, ask_back
from stalegrid.data import CropAndFlip, load_cifar10
from stalegrid.models.named import resnet

GROUPS, BATCH, EPOCHS = 4, 32, 3
AN_EPOCH = 50_000 // (GROUPS * BATCH)
UPDATES = EPOCHS * AN_EPOCH
_RATE = 0.1
_SAVED = 130  # updates, three times an epoch


class Mortal(nn.Module):
    """A model whose first process that comes to a forward of this number is killed, once.

    Args:
        model: that is trained.
        mark: file that says that it has happened.
        after: number of the forward.
    """

    def __init__(self, model: nn.Module, mark: Path, after: int) -> None:
        super().__init__()
        self.model, self.mark, self.after, self.seen = model, str(mark), after, 0

    def forward(self, x: Tensor) -> Any:
        """Return what the model does."""
        self.seen += self.training
        if self.training and self.seen == self.after:
            try:
                os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return self.model(x)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.model(x)


class Asking(stalegrid.Callback):
    """Asks for lost groups back once an epoch has passed."""

    stops = False

    def on_start(self, folder: Path) -> None:
        """Note where the run is."""
        self.folder, self.asked = folder, False

    def on_report(self, record: dict[str, Any]) -> None:
        """Ask, when it is time."""
        if record["update"] >= 2 * AN_EPOCH and len(record["group_loss"]) < GROUPS and not self.asked:
            self.asked = True
            ask_back(self.folder / FOLDER, None)


def main() -> None:
    """Train what has not been trained yet, and print what came of all."""
    parser = ArgumentParser(prog="python -m benchmarks.away", description="a group that is gone for an epoch of three")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder with CIFAR-10's files")
    parser.add_argument("--out", type=Path, default=Path("away"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    options = parser.parse_args()
    table = Table("seed", "run", "away", "test accuracy", "test loss", "epochs trained")
    for seed in range(options.seeds):
        for name, after in (("undisturbed", 0), ("a group away", AN_EPOCH)):
            out = options.out / f"{name.replace(' ', '-')}-{seed}"
            if not (out / FOLDER / "ended").exists():
                _train(options.data_dir, out, seed, after)
            table.add_row(str(seed), name, *_found(out))
    Console(width=120).print(table)


def _train(data: Path, out: Path, seed: int, after: int) -> None:
    torch.manual_seed(seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    stalegrid.train(
        Mortal(resnet(20), out.parent / f"{out.name}.killed", after),
        load_cifar10(data, train=True),
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer(_RATE),
        scheduler=partial(OneCycleLR, max_lr=_RATE, total_steps=UPDATES + 1, cycle_momentum=False),
        test=load_cifar10(data, train=False),
        augment=CropAndFlip(),
        groups=GROUPS,
        stages=1,
        batch_size=BATCH,
        updates=UPDATES,
        seed=seed,
        checkpoint=_SAVED,
        engine=stalegrid.EngineSettings(on_loss="continue"),
        output=stalegrid.OutputSettings(folder=out, log_every=10, evaluate_every=1.0),
        callbacks=[Asking()],
    )


def _found(out: Path) -> list[str]:
    summary = json.loads((out / "summary.json").read_text())
    lost, back = summary.get("lost_groups", ()), summary.get("returned_groups", ())
    away = ", ".join(
        f"group {one['group']}, updates {one['version']} to {other['version']}"
        for one, other in zip(lost, back, strict=True)
    )
    accuracy, loss = f"{summary['test_accuracy']:.2%}", f"{summary['test_loss']:.3f}"
    return [away or "-", accuracy, loss, f"{summary['epoch']:.2f}"]


if __name__ == "__main__":
    main()
