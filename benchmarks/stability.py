"""How training fares at constant rates around the largest stable one that is measured before it starts.

``python -m benchmarks.stability CASE ... --data-dir FOLDER``: for each case, staleness and momentum the smallest limit
of a stage or of all together, at the model that training begins with, and the training loss after so many updates at
multiples of it.  Losses above that of who knows nothing are marked: training has left.
"""

import dataclasses
import json
import math
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from stalegrid.errors import NonFiniteLoss
from stalegrid.recipes import RunConfig, make_task
from stalegrid.runs import execute, find_limits

MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Of the limit, at which is trained."""


@dataclass(frozen=True)
class Case:
    """What is trained.

    Args:
        options: of the run.
        chance: loss of who knows nothing.
        updates: after which it is judged.
        staleness: of the first of two stages, in turn.
        momentum: in turn.
    """

    options: dict[str, Any]
    chance: float
    updates: int
    staleness: tuple[int, ...] = (0, 2, 8)
    momentum: tuple[float, ...] = (0.0, 0.9)


CASES = {
    "plain": Case({"data": "digits", "model": "benchmarks.stability:plain", "batch_size": 64}, math.log(10), 150),
    "digits": Case({"data": "digits", "model": "mlp", "batch_size": 64}, math.log(10), 150),
    "resnet20": Case({"data": "cifar10", "model": "resnet20", "batch_size": 32}, math.log(10), 60, (0, 8), (0.9,)),
    "gpt": Case(
        {"data": {"name": "text", "context": 32}, "model": "gpt", "batch_size": 16}, math.log(65), 60, (0, 8), (0.9,)
    ),
}


def plain() -> nn.Module:
    """Return a network for digits without normalisation, which bounds no output whatever the rate."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))


def main() -> None:
    """Measure the cases that are named."""
    parser = ArgumentParser(prog="python -m benchmarks.stability")
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    parser.add_argument("--data-dir", type=Path, default=None, help="with the files of CIFAR-10, or with a file *.txt")
    options = parser.parse_args()
    for name in options.cases:
        Console(width=120).print(_table(name, CASES[name], options.data_dir))


def _table(name: str, case: Case, folder: Path | None) -> Table:
    shown = Table("staleness", "momentum", "nothing late", "limit", *(f"x {m:g}" for m in MULTIPLES), title=name)
    for momentum in case.momentum:
        for staleness in case.staleness:
            config = _config(case, staleness, momentum, folder)
            limits = find_limits(make_task(config), config, batches=8)
            rates = [limit.rate for limit in limits.each if limit.rate is not None]
            at_once = [limit.at_once for limit in limits.each if limit.at_once is not None]
            losses = (_trained(config, case, multiple * min(rates)) for multiple in MULTIPLES)
            row = [f"{staleness}, 0", f"{momentum:g}", f"{min(at_once):.3g}", f"{min(rates):.3g}"]
            row += ["inf *" if loss is None else f"{loss:.3g}" + " *" * (loss > case.chance) for loss in losses]
            shown.add_row(*row)
            print(name, *row, flush=True)
    return shown


def _config(case: Case, staleness: int, momentum: float, folder: Path | None) -> RunConfig:
    data = case.options["data"]
    data = {"name": data} if isinstance(data, str) else data
    return RunConfig.of(
        {
            **case.options,
            "data": {**data, **({} if folder is None else {"folder": folder})},
            "method": {"name": "pipedream", "staleness": [staleness, 0]},
            "stages": 2,
            "schedule": "constant",
            "optimizer": {"name": "sgd", "momentum": momentum, "weight_decay": 0.0},
            "engine": "simulator",
            "updates": case.updates,
        }
    )


def _trained(config: RunConfig, case: Case, rate: float) -> float | None:
    """Return the mean training loss of the last tenth of a run; None where it was not finite."""
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=rate))
    every = max(1, case.updates // 10)
    with tempfile.TemporaryDirectory() as folder:
        out, usual = Path(folder) / "run", config.output
        output = dataclasses.replace(usual, folder=out, log_every=every, evaluate_every=0.0, gap=False, loggers=[])
        try:
            execute(_untested(config), dataclasses.replace(config, output=output), quiet=True)
        except NonFiniteLoss:
            return None
        *_, last = _losses(out / "metrics.jsonl")
    return last


def _untested(config: RunConfig) -> Any:
    return dataclasses.replace(make_task(config), test=None)


def _losses(path: Path) -> Iterator[float]:
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "train":
            yield float(record["loss"])


if __name__ == "__main__":
    main()
