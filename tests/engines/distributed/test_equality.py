"""The same bits on the simulator, on real processes and as plain loops, whichever way processes share the units."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from stalegrid.config import Settings
from stalegrid.plans import Task
from stalegrid.plans.plan import Plan
from stalegrid.studies.loops import plain_loop
from stalegrid.studies.verifying import Outcome, compare, outcome_of, read_outcome, run_engine
from tests.cases import CPU, changed, images, make_plan, make_settings, make_task, run_simulator
from tests.engines.distributed import matrix

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[3]
WORLDS = (2, 3)

Expected = Callable[[str], tuple[Plan, Outcome, Outcome]]


@pytest.fixture(scope="module")
def expected() -> Expected:
    """Return by name what is planned, what the simulator computes and what the plain loop does, each once."""
    every = {name: settings for world in WORLDS for name, settings in matrix.configurations(world).items()}

    def made(name: str) -> tuple[Plan, Outcome, Outcome]:
        task = matrix.task_of(every[name])
        plan = make_plan(task, every[name])
        loop = plain_loop(task, plan, CPU)
        assert loop is not None, name
        return plan, run_simulator(task, every[name], plan), outcome_of(loop())

    return cache(made)


@pytest.mark.parametrize("world", WORLDS)
def test_the_whole_matrix_on_processes_that_torchrun_started(world: int, expected: Expected, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    script = ["-m", "tests.engines.distributed.matrix", str(tmp_path), str(world)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(torchrun + script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert made.returncode == 0, made.stderr[-4000:]
    configurations = matrix.configurations(world)
    assert configurations
    for name in configurations:
        plan, simulated, looped = expected(name)
        for found in (read_outcome(tmp_path / name, plan), looped):
            difference = compare(name, simulated, found)
            assert difference.equal, difference


@pytest.mark.parametrize(("groups", "stages", "processes"), [(2, 2, 4), (3, 3, 3), (1, 1, 1)])
def test_processes_started_by_the_library_itself(groups: int, stages: int, processes: int) -> None:
    hold(make_task(), make_settings(groups, stages, lag=1, processes=processes))


@pytest.mark.parametrize("processes", [1, 2, 16])
@pytest.mark.parametrize("mixing", [{"topology": "complete"}, {"method": "data-parallel"}], ids=str)
def test_sixteen_groups_each_of_which_talks_to_each(mixing: dict[str, str], processes: int) -> None:
    task = make_task(data=images(64))
    hold(task, make_settings(16, 1, batch_size=2, updates=4, processes=processes, **mixing))


def hold(task: Task, settings: Settings) -> None:
    """Hold processes against the simulator."""
    plan = make_plan(task, settings)
    settings = plan.settled(settings)
    simulated = run_engine(task, changed(settings, engine="simulator"), plan)
    found = run_engine(task, settings, plan)
    assert torch.equal(torch.tensor(found.losses), torch.tensor(simulated.losses))
    assert compare("processes", simulated, found).equal
