"""Whether hosts have GPUs that torch can use, and the same library to send between them.

Does not know: whether a run asks for them.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from stalegrid.doctor.rows import Hosts, Row, at, differing, told
from stalegrid.observe import Record

_DRIVER = Path("/dev/nvidiactl")


def look() -> Record:
    """Return which GPUs this host has."""
    usable = torch.cuda.is_available()
    number = torch.cuda.device_count() if usable else 0
    return {
        "gpus": [torch.cuda.get_device_name(i) for i in range(number)],
        "driver": _DRIVER.exists(),
        "build": torch.version.cuda,
        "nccl": _nccl() if usable else "",
    }


def _nccl() -> str:
    version: Callable[[], tuple[int, ...]] = torch.cuda.nccl.version
    return ".".join(map(str, version()))


def rows(hosts: Hosts) -> list[Row]:
    """Judge the GPUs."""
    unused = at(
        hosts,
        lambda h: h.told["driver"] and not h.told["gpus"],
        "has GPUs, and torch sees none: install a build of torch for its driver, or mind CUDA_VISIBLE_DEVICES",
    )
    uneven = differing(
        hosts, lambda h: "GPUs" if h.told["gpus"] else "none", "name the device: --device auto takes what each host has"
    )
    shared = at(
        hosts,
        lambda h: 0 < len(h.told["gpus"]) < h.processes,
        "more processes than GPUs, which they share then, and send through the host's memory",
    )
    with_gpus = [host for host in hosts if host.told["gpus"]]
    apart = differing(with_gpus, lambda h: h.told["nccl"], "install the same NCCL, that is the same build of torch")
    return [
        Row("GPUs", told(hosts, lambda h: _counted(h.told["gpus"])), (), unused + uneven + shared),
        *([Row("NCCL", told(with_gpus, lambda h: h.told["nccl"] or "none"), apart)] if with_gpus else []),
    ]


def _counted(names: list[str]) -> str:
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "none"
