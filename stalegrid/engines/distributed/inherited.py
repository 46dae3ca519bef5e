"""What a process hands on to those that it starts, and what they then keep, whatever becomes of it in their starter.

Does not know: what is started, what for.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_KEPT = ("Umask", "Uid", "Gid", "Groups", "SigIgn", "Cap", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed")
"""Lines in which Linux says what a process hands on."""

_PASSING = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR", "PYTEST_CURRENT_TEST")
"""Variables that scikit-learn, torch and pytest set as they go, and that nothing reads when it is loaded."""


@dataclass(frozen=True)
class Inherited:
    """What a process that is started now gets from this one.

    Args:
        command: the interpreter and its flags: it is as optimised, isolated or verbose as this one.
        environment: its variables, since libraries read some of them when they are loaded, and never again.
        system: limits, rights, cores and the like, as far as the system tells them.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    system: tuple[str, ...]

    @classmethod
    def now(cls) -> "Inherited":
        """Return what a process that is started now, by this thread, would get."""
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        environment = {name: value for name, value in os.environ.items() if name not in _PASSING}
        return cls((sys.executable, *flags), environment, tuple(_system()))


def _system() -> list[str]:
    found = [f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"]
    here = Path("/proc/thread-self")
    if here.is_dir():
        status = (here / "status").read_text().splitlines()
        found += [line for line in status if line.startswith(_KEPT)]
        found.append((here / "limits").read_text())
        found += sorted(os.readlink(kind) for kind in (here / "ns").iterdir())
    return found
