"""Peak resident memory of four processes with a GPT of 303 million parameters that none of them has whole.

The ideal is what a stage must have: parameters, gradients, AdamW's two moments, batches in flight as the plan counts
them, and one plain ``import torch``.  What the observer and the process that starts the run occupy stands beside it.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid
from benchmarks.measure import Row, Skipped, ratio, together
from benchmarks.memory import MB, Watcher, peak
from stalegrid import GridSettings, OutputSettings
from stalegrid.models.gpt import GPT

LAYERS, WIDTH, STAGES = 24, 1024, 4
CLASSES, TOKENS, BATCH, UPDATES = 1000, 64, 4, 6
STATE = 4 * 4
"""Bytes of a parameter with its gradient and AdamW's moments, in float32."""

LIMIT = 1.15
"""Times the ideal that a process may occupy."""

TORCH = "import torch; print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM:')))"


class Peak(stalegrid.Callback):
    """Writes what the observer's process has occupied at most.

    Args:
        path: file for that, in bytes.
    """

    stops = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_end(self, summary: dict[str, Any]) -> None:
        """Write it."""
        self.path.write_text(str(peak()))


def run(turns: int) -> Row:
    """Measure every process of a pipeline of four."""
    if not Path("/proc/self/status").exists():
        raise Skipped("needs Linux, which tells what a process occupies")
    figures = together({"": _measure}, turns)
    names = [f"stage {k}" for k in range(STAGES)]
    ratios = [ratio(figures, f"{name} peak, MB", f"{name} ideal, MB", at_most=LIMIT) for name in names]
    return Row(figures, ratios, [])


def _measure() -> dict[str, float]:
    """Measure in a process of its own: what this one has occupied at most would hide what a run does."""
    made = subprocess.run([sys.executable, "-m", "benchmarks.large"], capture_output=True, text=True, check=True)
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in made.stdout.splitlines())}


def make(paths: list[Path]) -> nn.Module:
    """Make the model, with a watcher at the start of every stage."""
    model = GPT(CLASSES, TOKENS, LAYERS, heads=16, width=WIDTH)
    for stage, path in enumerate(paths):
        first = stage * LAYERS // STAGES
        model.blocks[first] = nn.Sequential(Watcher(path), model.blocks[first])
    return model


def main() -> None:
    """Train, and print what each process occupied at most and what it must have."""
    tokens = torch.randint(0, CLASSES, (64, TOKENS), generator=torch.Generator().manual_seed(0))
    data = TensorDataset(tokens, tokens.roll(-1, 1))
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"stage-{k}" for k in range(STAGES)]
        cuts = [f"blocks.{stage * LAYERS // STAGES}" for stage in range(1, STAGES)]
        made = stalegrid.train(
            partial(make, paths),
            data,
            loss=nn.CrossEntropyLoss(),
            optimizer=partial(torch.optim.AdamW, lr=1e-4),
            test=TensorDataset(*data[: 4 * BATCH]),
            test_batch_size=BATCH,
            method="1f1b",
            grid=GridSettings(groups=1, stages=STAGES, cuts=cuts),
            batch_size=BATCH,
            micro_batches=BATCH,
            updates=UPDATES,
            output=OutputSettings(folder=Path(name) / "out", evaluate_every=0, loggers=[]),
            callbacks=[Peak(Path(name) / "observer")],
            quiet=True,
        )
        torch_alone = 1024 * int(subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True).stdout)
        owned = [0] * STAGES
        for parameter, stage in _owners(made.model):
            owned[stage] += parameter.numel()
        for stage, (path, held) in enumerate(zip(paths, made.summary["held_at_most"], strict=True)):
            print(f"stage {stage} peak, MB {int(path.read_text()) / MB}")
            print(f"stage {stage} ideal, MB {(STATE * owned[stage] + held + torch_alone) / MB}")
        print(f"import torch, MB {torch_alone / MB}")
        print(f"observer peak, MB {int((Path(name) / 'observer').read_text()) / MB}")
        print(f"starter peak, MB {peak() / MB}")


def _owners(model: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Return each parameter with the stage that trains it."""
    blocks = {name: p for name, p in model.named_parameters() if name.startswith("blocks.")}
    stages = [(p, int(name.split(".")[1]) * STAGES // LAYERS) for name, p in blocks.items()]
    lowest = [(p, 0) for name, p in model.named_parameters() if name.split(".")[0] in ("tokens", "positions")]
    return [*stages, *lowest, *((p, STAGES - 1) for name, p in model.named_parameters() if name.startswith("norm"))]


if __name__ == "__main__":
    main()
