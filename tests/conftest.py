"""What holds for all tests: they are on the CPU, but for those of a GPU that are asked for, no garbage is collected
while they are gathered, and no example is drawn against a clock.

Whatever torch and 200 files of tests hold stays to the end: to look through it again and again takes half the time of
gathering, and a tenth of that of the tests.
"""

import gc
import os

import pytest
from hypothesis import settings

# Runs take a GPU where there is one, and plain loops of tests have no device.
if "STALEGRID_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip where torch can compile nothing."""
    from stalegrid.stages import fault_of_compiler

    if (why := fault_of_compiler()) is not None:
        pytest.skip(f"torch compiles nothing here: {why}")
