"""Whether hosts run the same: Python, torch, this library, and processors of one sort.

Does not know: what is trained.
"""

import torch

from stalegrid.doctor.rows import Hosts, Row, differing, told
from stalegrid.engines import Greeting, Surroundings
from stalegrid.observe import Record


def look(greeting: Greeting) -> Record:
    """Return what this host runs."""
    return {
        "python": greeting.python,
        "torch": greeting.torch,
        "build": str(torch.__version__),
        "stalegrid": greeting.stalegrid,
        "code": greeting.code,
        "arithmetic": torch.backends.cpu.get_cpu_capability(),
        "switches": Surroundings.here().text(),
    }


def rows(hosts: Hosts) -> list[Row]:
    """Judge what hosts run."""
    same = "install the same {} on all hosts: a run is refused"
    python = differing(
        hosts, lambda h: h.told["python"].rpartition(".")[0], "take the same Python, on which your code may depend"
    )
    torches = differing(hosts, lambda h: h.told["torch"], same.format("torch"))
    ours = differing(hosts, lambda h: h.told["stalegrid"], same.format("stalegrid"))
    files = differing(hosts, lambda h: h.told["code"], "install stalegrid from the same files: a run is refused")
    switches = differing(
        hosts,
        lambda h: h.told["switches"],
        "let switches of torch, such as TF32, be set alike on all hosts: a run is refused",
    )
    arithmetic = differing(
        hosts,
        lambda h: h.told["arithmetic"],
        "processors of several sorts sum in other orders: where who computes what changes, so may the last bits; let "
        "ATEN_CPU_CAPABILITY=avx2 in the environment of all hosts make them alike",
    )
    return [
        Row("Python", told(hosts, lambda h: h.told["python"]), advised=python),
        Row("torch", told(hosts, lambda h: h.told["build"]), torches + switches),
        Row("stalegrid", told(hosts, lambda h: f"{h.told['stalegrid']}, files {h.told['code'][:8]}"), ours or files),
        Row("arithmetic", told(hosts, lambda h: h.told["arithmetic"]), advised=arithmetic),
    ]
