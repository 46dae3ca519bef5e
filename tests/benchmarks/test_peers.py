import json

import pytest

from benchmarks.peers.start import under_torchrun
from benchmarks.workloads import BACKWARD, FORWARD, WORKLOADS


@pytest.mark.thorough
def test_the_updates_of_a_grid_are_noted_though_a_run_has_copies_of_what_makes_its_optimizers() -> None:
    name = "two-sleepers"
    settings = {"groups": 1, "stages": 2, "cuts": ["1"], "staleness": [2, 0], "batch_size": WORKLOADS[name].batch}
    found = under_torchrun("grid", 2, name, 20, json.dumps(settings))
    # Updates that come after a late one may follow sooner, but a device never sleeps less.
    assert found["seconds"] >= 0.5 * (FORWARD + BACKWARD)
