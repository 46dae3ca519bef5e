"""The same bits on the simulator, on real processes and as plain loops, whichever way processes share the units."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stalegrid.config import Settings
from stalegrid.plans import Task
from stalegrid.studies.loops import plain_loop
from stalegrid.studies.verifying import compare, outcome_of, read_outcome, run_engine
from tests.cases import CPU, changed, images, make_plan, make_settings, make_task, run_simulator
from tests.engines.distributed import matrix

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("world", [2, 3])
def test_the_whole_matrix_on_processes_that_torchrun_started(world: int, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    script = ["-m", "tests.engines.distributed.matrix", str(tmp_path), str(world)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(torchrun + script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert made.returncode == 0, made.stderr[-4000:]
    configurations = matrix.configurations(world)
    assert configurations
    for name, settings in configurations.items():
        task = matrix.task_of(settings)
        plan = make_plan(task, settings)
        simulated = run_simulator(task, settings, plan)
        loop = plain_loop(task, plan, CPU)
        assert loop is not None, name
        for found in (read_outcome(tmp_path / name, plan), outcome_of(loop())):
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
