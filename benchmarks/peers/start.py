"""How peers are started and timed.

Does not know: what they train.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist

from benchmarks.hosts import INTERFACE, Host
from benchmarks.measure import THREADS

PATIENCE = 900.0
"""Seconds within which hosts have done their work."""

WARM_UP = 0.2
"""Share of the updates that are not timed."""


def under_torchrun(peer: str, processes: int, *arguments: object) -> dict[str, float]:
    """Run a peer in processes of its own and return the figures that it printed.

    Args:
        peer: module beside this one.
        processes: how many.
        arguments: of its command line.

    Raises:
        RuntimeError: it failed.
    """
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return _figures([*launcher, f"{__package__}.{peer}", *map(str, arguments)], THREADS)


def on_hosts(network: Sequence[Host], peer: str, *arguments: object) -> dict[str, float]:
    """Run a peer in one process a host and return the figures that the first one printed."""
    first, port = network[0].address, 29400
    running = []
    for rank, host in enumerate(network):
        places = [f"--nnodes={len(network)}", f"--node-rank={rank}", f"--master-addr={first}", f"--master-port={port}"]
        launcher = ["torch.distributed.run", "--nproc-per-node=1", *places, "-m"]
        module = [*launcher, f"{__package__}.{peer}", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "GLOO_SOCKET_IFNAME": INTERFACE}
        command = host.command([sys.executable, "-m", *module])
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    try:
        said = [process.communicate(timeout=PATIENCE) for process in running]
    finally:
        for process in running:
            process.terminate()  # torchrun then ends what it has started; one that has ended does not mind
    if any(process.returncode for process in running):
        raise RuntimeError(f"{peer} failed:\n" + "\n".join(text[-2000:] for _, text in said))
    figures: dict[str, float] = json.loads(said[0][0].splitlines()[-1])
    return figures


def started(peer: str, *arguments: object, threads: int = THREADS) -> dict[str, float]:
    """Run a peer in one process and return the figures that it printed."""
    return _figures([f"{__package__}.{peer}", *map(str, arguments)], threads)


def _figures(module: Sequence[str], threads: int) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    made = subprocess.run([sys.executable, "-m", *module], env=environment, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{' '.join(module)} failed:\n{made.stderr[-4000:]}")
    figures: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return figures


def tell(figures: Mapping[str, float]) -> None:
    """Print figures for whoever started this process."""
    print(json.dumps(figures), flush=True)


def leave() -> NoReturn:
    """End this process of several at once.

    A model in DistributedDataParallel keeps its process group, whose threads may wait for the interpreter's lock while
    the interpreter, at its end, waits for them.
    """
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)


def bytes_sent() -> int:
    """Return what this process's host has sent since it started."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == INTERFACE:
            return int(numbers.split()[8])
    return 0


def everybody(number: int) -> int:
    """Return the sum of a number over all processes."""
    total = torch.tensor(number)
    dist.all_reduce(total)
    return int(total)


def seconds_per_update(update: Callable[[int], None], updates: int) -> float:
    """Return the seconds of an update once all is warm.

    Args:
        update: makes the update of a number.
        updates: how many, the first fifth of which is not timed.
    """
    skipped, start = max(1, int(updates * WARM_UP)), 0.0
    for n in range(updates):
        if n == skipped:
            _meet()
            start = time.perf_counter()
        update(n)
    _meet()
    return (time.perf_counter() - start) / (updates - skipped)


def _meet() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if dist.is_initialized():
        dist.barrier()
