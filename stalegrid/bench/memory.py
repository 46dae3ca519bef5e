"""Peak resident memory of every process against the closed form, for each view.

The closed form is what a process holds for batches in flight and old versions, and parameters, gradients and momentum.
It is added to what the process occupied before its first forward; what an operation needs for a moment is not in it.
"""

import tempfile
from functools import partial
from pathlib import Path

from torch import Tensor, nn

import stalegrid
from stalegrid.bench.measure import Row, Skipped, ratio, together
from stalegrid.bench.workloads import WORKLOADS, optimizer

BATCH, STAGES, UPDATES = 128, 4, 24
CUTS = (4, 6, 8)
"""Children of ResNet-20 that begin the later stages."""

VIEWS = ("stashed", "current", "recomputed")
MB = 1e6


class Watcher(nn.Module):
    """A layer that passes on what it is given and writes what its process occupies.

    Args:
        path: file for bytes resident at the first forward, and the peak so far.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.first = path, 0

    def forward(self, x: Tensor) -> Tensor:
        """Write and pass on."""
        self.first = self.first or _status("VmRSS")
        self.path.write_text(f"{self.first} {_status('VmHWM')}")
        return x.view_as(x)


def _status(name: str) -> int:
    """Return bytes that Linux tells of this process; getrusage would tell of what its starter occupied, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kilobytes) * 1024


def run(turns: int) -> Row:
    """Measure every stage of a pipeline of four with slack."""
    if not Path("/proc/self/status").exists():
        raise Skipped("needs Linux, which tells what a process occupies")
    figures = together({view: partial(_measure, view) for view in VIEWS}, turns)
    names = [f"{view} stage {k}" for view in VIEWS for k in range(STAGES)]
    ratios = [ratio(figures, f"{n} peak, MB", f"{n} closed form, MB", at_least=0.9, at_most=1.1) for n in names]
    return Row(figures, ratios)


def _measure(view: str) -> dict[str, float]:
    workload = WORKLOADS["resnet20"]
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        watchers = [Path(name) / f"stage-{k}" for k in range(STAGES)]
        model, cuts = _watched(workload.model(), watchers)
        made = stalegrid.train(
            model,
            workload.samples(BATCH * 4),
            loss=nn.CrossEntropyLoss(),
            optimizer=optimizer(),
            groups=1,
            stages=STAGES,
            cuts=cuts,
            staleness=[2 * (STAGES - 1 - k) for k in range(STAGES)],
            view=view,
            batch_size=BATCH,
            updates=UPDATES,
            evaluate_every=0,
            quiet=True,
        )
        for k, path in enumerate(watchers):
            first, peak = map(int, path.read_text().split())
            form = first + made.summary["held_at_most"][k] + 2 * _parameters(model, cuts, k)
            found |= {f"{view} stage {k} peak, MB": peak / MB, f"{view} stage {k} closed form, MB": form / MB}
    return found


def _watched(model: nn.Sequential, paths: list[Path]) -> tuple[nn.Sequential, list[str]]:
    """Return the model with a watcher at the start of every stage, and where the later stages begin."""
    children = list(model)
    for place, path in reversed(list(zip((0, *CUTS), paths, strict=True))):
        children.insert(place, Watcher(path))
    return nn.Sequential(*children), [str(cut + k + 1) for k, cut in enumerate(CUTS)]


def _parameters(model: nn.Sequential, cuts: list[str], stage: int) -> int:
    """Return the bytes of a stage's parameters: once for the gradients, once more for the momentum."""
    bounds = [0, *map(int, cuts), len(model)]
    return sum(p.nbytes for child in list(model)[bounds[stage] : bounds[stage + 1]] for p in child.parameters())
