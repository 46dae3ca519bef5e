"""How long it takes from the command to the first update, on processes and on the simulator."""

import subprocess
import sys
import time
from functools import partial

from benchmarks.measure import Row, interleave, ratio

ENGINES = {"processes": "2 x 2 on processes, s to the first update", "simulator": "the same on the simulator, s"}
GOAL = 1.5


def run(turns: int) -> Row:
    """Measure the main job, which trains on the digits in four processes and an observer's."""
    figures = interleave({name: partial(_seconds, engine) for engine, name in ENGINES.items()}, turns)
    return Row(figures, [ratio(figures, *ENGINES.values(), at_most=GOAL)])


def _seconds(engine: str) -> float:
    command = [
        sys.executable,
        "-m",
        "stalegrid",
        "train",
        "--epochs",
        "1",
        "--output.log-every",
        "1",
        "--engine",
        engine,
    ]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        for line in training.stdout:
            if line.startswith("update 1/"):
                taken = time.perf_counter() - start
        if training.wait():
            raise RuntimeError(f"the training ended with exit status {training.returncode}")
    return taken
