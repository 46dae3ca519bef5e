"""Whether hosts have room for their processes: memory, shared memory, open files, processors, a private folder.

Does not know: what processes hold beside the libraries.
"""

import os
import resource
import shutil
from contextlib import suppress
from pathlib import Path

from stalegrid.doctor.rows import Hosts, Row, at, told
from stalegrid.engines import private_folder
from stalegrid.errors import ConfigError
from stalegrid.observe import Record

PROCESS = 0.5e9
"""Bytes of a process that has loaded torch and holds nothing yet."""

SHARED = 256e6
"""Bytes in which processes that read ahead hand over some batches."""

FILES, EACH = 64, 2
"""Open files of a process, and those for each other process of the run."""

_MEMORY, _SHARED, _GROUP = Path("/proc/meminfo"), Path("/dev/shm"), Path("/sys/fs/cgroup")


def look() -> Record:
    """Return how much room this host has."""
    found = {
        "memory": _memory(),
        "shared": shutil.disk_usage(_SHARED).free if _SHARED.exists() else None,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "processors": _processors(),
        "folder": "",
    }
    try:
        with private_folder():
            pass
    except ConfigError as problem:
        found["folder"] = str(problem)
    return found


def _memory() -> int | None:
    """Return the bytes that are free, in a container those that it may take."""
    lines = _MEMORY.read_text().splitlines() if _MEMORY.exists() else []
    found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # no container, or no limit
        most, taken = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(max(0, most - taken))
    return min(found, default=None)


def _processors() -> float:
    """Return how many processors this process may use, in a container perhaps a part of one."""
    found = float(len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):
        quota, period = (_GROUP / "cpu.max").read_text().split()
        found = min(found, int(quota) / int(period))
    return found


def rows(hosts: Hosts) -> list[Row]:
    """Judge the room."""
    size = sum(host.processes for host in hosts)
    due = FILES + EACH * size
    memory = at(
        hosts,
        lambda h: h.told["memory"] is not None and h.told["memory"] < PROCESS * h.processes,
        f"too little memory for its processes, which take {PROCESS / 1e9:g} GB each before they hold anything; start "
        "fewer, or end others",
    )
    shared = at(
        hosts,
        lambda h: h.told["shared"] is not None and h.told["shared"] < SHARED,
        "little shared memory (/dev/shm), in which processes that read ahead (--training.workers) hand over batches; "
        "start a container with --shm-size 1g, or read without them",
    )
    files = at(
        hosts, lambda h: 0 <= h.told["files"] < due, f"a process may open too few files ({due} are due); ulimit -n 4096"
    )
    few = at(
        hosts,
        lambda h: h.told["processors"] < h.processes,
        "fewer processors than processes, which wait for each other then; start fewer",
    )
    folders = tuple(f"{host.name}: {host.told['folder']}" for host in hosts if host.told["folder"])
    return [
        Row("memory free", told(hosts, lambda h: _size(h.told["memory"])), memory),
        Row("shared memory free", told(hosts, lambda h: _size(h.told["shared"])), advised=shared),
        Row("open files", told(hosts, lambda h: h.told["files"] if h.told["files"] >= 0 else "any number"), files),
        Row("processes", told(hosts, lambda h: f"{h.processes} on {h.told['processors']:g} processors"), advised=few),
        Row("private folder", told(hosts, lambda h: "none" if h.told["folder"] else "can be made"), folders),
    ]


def _size(nbytes: int | None) -> str:
    return "unknown" if nbytes is None else f"{nbytes / 1e9:.2g} GB"
