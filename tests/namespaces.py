"""Hosts of a test: network namespaces with names of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.hosts import INTERFACE, Host, hosts
from benchmarks.measure import Skipped

SECRET = "a long random text of a test"


@contextmanager
def network(number: int, mbit: float = 100.0, delay: float = 0.0) -> Iterator[list[Host]]:
    """Make hosts, or skip the test and say why."""
    try:
        with hosts(number, mbit, delay) as found:
            yield found
    except Skipped as why:
        pytest.skip(str(why))


def start(host: Host, name: str, command: Sequence[str], folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start Python on a host and return the process, whose output and errors are one text.

    Args:
        host: which.
        name: of it, as it knows itself.
        command: what follows ``python``.
        folder: the current one.
        environment: further variables.
    """
    python = ["sh", "-c", f'hostname {name} && exec "$@"', "sh", sys.executable, *command]
    variables = {"OMP_NUM_THREADS": "1", "STALEGRID_SECRET": SECRET, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        host.command(["unshare", "--uts", *python]),
        env={**os.environ, **variables, **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(running: "Sequence[subprocess.Popen[str]]") -> None:
    """End processes that have not ended."""
    for process in running:
        process.kill()
    for process in running:
        process.communicate()


def cut_off(host: Host) -> None:
    """Take a host's link down."""
    subprocess.run(["ip", "-n", host.namespace, "link", "set", INTERFACE, "down"], check=True)
