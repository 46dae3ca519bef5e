"""Whatever a process would get otherwise, if it were started now, is noticed."""

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stalegrid.engines.distributed.inherited import Inherited

Patch = pytest.MonkeyPatch


def _limit(patch: Patch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if soft else 4096, hard))


CHANGES: dict[str, Callable[[Patch], object]] = {
    "a variable": lambda patch: patch.setenv("OMP_NUM_THREADS", "3"),
    "one variable less": lambda patch: patch.delenv("PATH"),
    "a flag": lambda patch: patch.setattr(sys, "warnoptions", ["ignore"]),
    "the interpreter": lambda patch: patch.setattr(sys, "executable", "/bin/true"),
    "a limit": _limit,
    "the mask of modes": lambda _: os.umask(0o027),
    "a signal that is ignored": lambda _: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
    "the place in the queue": lambda _: os.nice(1),
}


@pytest.mark.skipif(not Path("/proc/thread-self").is_dir(), reason="only Linux tells all of this")
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(name: str, monkeypatch: Patch) -> None:
    before = Inherited.now()
    assert before == Inherited.now()
    child = os.fork()  # where nothing has to be undone
    if not child:
        CHANGES[name](monkeypatch)
        os._exit(Inherited.now() == before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
