"""How fast programs run without tensors, and how time and memory grow with the grid and the batches."""

import time
import tracemalloc
from functools import partial

from benchmarks.measure import Row, interleave, ratio
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import Averaging
from stalegrid.methods.choose import find_grid, schedule
from stalegrid.programs.grid import Grid
from stalegrid.programs.pipeline import Program
from stalegrid.timing.clock import TimeModel, message_bytes
from stalegrid.timing.costs import Cost
from stalegrid.timing.disturbances import Disturbances, Jitter
from stalegrid.timing.estimating import Estimate, estimate

GOAL = 200_000
"""Actions a second."""


def run(turns: int) -> Row:
    """Measure actions a second of a pipeline, and the growth from small to large grids of groups that mix."""
    rates = interleave({"1 x 8, 4000 batches, actions/s": lambda: _rate(1, 8, 4000)}, turns)
    rates["goal, actions/s"] = [float(GOAL)] * turns
    sizes = {
        "64 x 16, 200 batches, s": (64, 16, 200),
        "16 x 16, 200 batches, s": (16, 16, 200),
        "16 x 16, 100 batches, s": (16, 16, 100),
    }
    times = interleave({name: partial(_seconds, *size) for name, size in sizes.items()}, turns)
    times["limit, s"] = [60.0] * turns
    memory = {name.replace(", s", ", MB"): [_megabytes(*size)] for name, size in sizes.items()}
    (rate, goal), names, megabytes = rates, list(times), list(memory)
    ratios = [
        ratio(rates, rate, goal, at_least=1.0),
        ratio(times, names[0], names[3], at_most=1.0),
        ratio(times, names[0], names[1], at_most=4.4),
        ratio(times, names[1], names[2], at_most=2.2),
        ratio(memory, megabytes[0], megabytes[1], at_most=4.4),
        ratio(memory, megabytes[1], megabytes[2], at_most=2.2),
    ]
    return Row(rates | times | memory, ratios)


def _estimate(groups: int, stages: int, batches: int) -> Estimate:
    pipeline = schedule(find_grid("pham-ahn"), stages, None, None, 1)
    lateral = Averaging(mixing_matrix("ring", groups), False, 1, 0, batches)
    program = Program(Grid(groups, stages), pipeline, batches, lateral)
    costs = tuple(Cost(forward=20, backward=40, update=1, mix=1, parameters=4_000_000) for _ in range(stages))
    disturbances = Disturbances(jitter=Jitter(0.5))
    return estimate(program, TimeModel(costs, 1, 0.0, message_bytes(costs, program), disturbances))


def _seconds(groups: int, stages: int, batches: int) -> float:
    start = time.perf_counter()
    _estimate(groups, stages, batches)
    return time.perf_counter() - start


def _rate(groups: int, stages: int, batches: int) -> float:
    start = time.perf_counter()
    made = _estimate(groups, stages, batches)
    return made.actions / (time.perf_counter() - start)


def _megabytes(groups: int, stages: int, batches: int) -> float:
    tracemalloc.start()
    _estimate(groups, stages, batches)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6
