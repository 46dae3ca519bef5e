"""Peak resident memory of every process against the closed form, for each view, with each allocator there is.

The closed form says what staleness adds: graphs, inputs and copies of batches in flight, and activations that wait.  It
is added to what the same processes occupy with one batch in flight, which has everything that does not grow: libraries,
parameters, buffers of messages, what an operation needs for a moment.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes.util import find_library
from functools import partial
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

import stalegrid
from benchmarks.measure import Row, Skipped, ratio, together
from benchmarks.workloads import WORKLOADS, optimizer
from stalegrid import GridSettings, OutputSettings
from stalegrid.partition.cutting import partition

BATCH, STAGES, UPDATES = 128, 4, 10
CUTS = (4, 6, 8)
"""Children of ResNet-20 that begin the later stages."""

VIEWS = ("stashed", "current", "recomputed")
SLACK = [2 * (STAGES - 1 - k) for k in range(STAGES)]
MB = 1e6

JEMALLOC = "jemalloc"


class Watcher(nn.Module):
    """A layer that passes on what it is given and writes what its process has occupied at most.

    Args:
        path: file for the peak so far, in bytes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.batches = 0  # counted so that the module has a state, and is called for each batch instead of traced

    def forward(self, x: Tensor) -> Tensor:
        """Write and pass on."""
        self.batches += 1
        self.path.write_text(str(peak()))
        return x.view_as(x)


def peak() -> int:
    """Return bytes that Linux tells of this process; getrusage would tell of what its starter occupied, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024


def run(turns: int) -> Row:
    """Measure every stage of a pipeline of four with slack."""
    if not Path("/proc/self/status").exists():
        raise Skipped("needs Linux, which tells what a process occupies")
    library = find_library(JEMALLOC)
    parts: dict[str, Callable[[], dict[str, float]]] = {"": partial(_measure, "")}
    if library is not None:
        parts[f"{JEMALLOC}, "] = partial(_preloaded, library)
    figures = together(parts, turns)
    names = [f"{prefix}{view} stage {k}" for prefix in parts for view in VIEWS for k in range(STAGES)]
    ratios = [ratio(figures, f"{n} peak, MB", f"{n} closed form, MB", at_least=0.9, at_most=1.1) for n in names]
    missing = f"{JEMALLOC} is not installed, so only the C library's allocator is measured"
    return Row(figures, ratios, [] if library else [missing])


def _preloaded(library: str) -> dict[str, float]:
    with _environment("LD_PRELOAD", library):
        return _measure(f"{JEMALLOC}, ")


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Let processes that are started meanwhile find a variable."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _measure(prefix: str) -> dict[str, float]:
    alone = _peaks(VIEWS[0], [0] * STAGES)  # nothing is late, so all views hold the same
    found = {f"{prefix}one batch in flight, stage {k}, MB": base / MB for k, (base, _) in enumerate(alone)}
    waiting = _waiting()
    for view in VIEWS:
        for k, ((base, held), (peak, now), late) in enumerate(zip(alone, _peaks(view, SLACK), waiting, strict=True)):
            name = f"{prefix}{view} stage {k}"
            found |= {f"{name} peak, MB": peak / MB, f"{name} closed form, MB": (base + now - held + late) / MB}
    return found


def _peaks(view: str, staleness: Sequence[int]) -> list[tuple[int, int]]:
    """Return the peak of each stage's process, and the bytes that the plan says it holds."""
    workload = WORKLOADS["resnet20"]
    with tempfile.TemporaryDirectory() as name:
        watchers = [Path(name) / f"stage-{k}" for k in range(STAGES)]
        model, cuts = _watched(workload.model(), watchers)
        made = stalegrid.train(
            model,
            workload.samples(BATCH * 4),
            loss=nn.CrossEntropyLoss(),
            optimizer=optimizer(),
            grid=GridSettings(groups=1, stages=STAGES, cuts=cuts),
            staleness=list(staleness),
            view=view,
            batch_size=BATCH,
            updates=UPDATES,
            output=OutputSettings(evaluate_every=0),
            quiet=True,
        )
        return [(int(p.read_text()), held) for p, held in zip(watchers, made.summary["held_at_most"], strict=True)]


def _watched(model: nn.Sequential, paths: list[Path]) -> tuple[nn.Sequential, list[str]]:
    """Return the model with a watcher at the start of every stage, and where the later stages begin."""
    children = list(model)
    for place, path in reversed(list(zip((0, *CUTS), paths, strict=True))):
        children.insert(place, Watcher(path))
    return nn.Sequential(*children), [str(cut + k + 1) for k, cut in enumerate(CUTS)]


def _waiting() -> list[int]:
    """Return the bytes of activations that slack lets wait for each stage: m_(k-1) - m_k of them, beside the next."""
    workload = WORKLOADS["resnet20"]
    made = partition(workload.model(), (workload.samples(BATCH).inputs,), STAGES, [str(cut) for cut in CUTS])
    sizes = [sum(spec.nbytes for spec in layout) for layout in made.layouts]
    return [0, *((above - below) * size for (above, below), size in zip(pairwise(SLACK), sizes, strict=True))]
