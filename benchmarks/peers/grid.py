"""A grid under torchrun, on hosts that somebody else has made: ``grid WORKLOAD TIMED SETTINGS``.

SETTINGS are in JSON: groups, stages and batch_size; and cuts, staleness, period and lag of the mixing, if unusual.
The first process prints seconds an update, and the bytes that all hosts have sent for one.  Not timed are the updates
in which the pipeline fills and drains.
"""

import json
import sys
import time
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import nn

import stalegrid
from benchmarks.peers.start import bytes_sent, everybody, leave, tell
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer
from stalegrid import GridSettings, MixingSettings, OutputSettings


class Noted(list[tuple[float, int]]):
    """When updates were made, and the bytes sent until then.

    A run has copies of all that a factory of optimizers reaches; these share one list.
    """

    def __deepcopy__(self, memo: object) -> Self:
        """Return the same list."""
        return self


def main(name: str, timed: int, settings: dict[str, Any]) -> None:
    """Train and print."""
    dist.init_process_group("gloo")
    noted = Noted()

    def noting(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        made = optimizer()(parameters)
        made.register_step_post_hook(lambda *_: noted.append((time.perf_counter(), bytes_sent())))
        return made

    staleness = settings.get("staleness")
    filling = draining = 2 * max(settings["stages"], *(staleness or [0]))
    updates = filling + timed + draining
    samples = BATCHES * settings["groups"] * settings["batch_size"]
    stalegrid.train(
        WORKLOADS[name].model(),
        WORKLOADS[name].samples(samples),
        loss=nn.CrossEntropyLoss(),
        optimizer=noting,
        updates=updates,
        groups=settings["groups"],
        stages=settings["stages"],
        staleness=staleness,
        grid=GridSettings(cuts=settings.get("cuts")),
        mixing=MixingSettings(period=settings.get("period", 1), lag=settings.get("lag", 0)),
        batch_size=settings["batch_size"],
        output=OutputSettings(log_every=updates, evaluate_every=0),
        quiet=True,
    )
    of_run = noted[-updates:]  # not those of a trial before
    (start, before), (end, after) = of_run[filling - 1], of_run[filling + timed - 1]
    sent = everybody(after - before) / timed
    if dist.get_rank() == 0:
        tell({"seconds": (end - start) / timed, "bytes": sent})
    leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
