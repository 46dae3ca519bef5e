"""What holds for all tests: they are on the CPU, but for those of a GPU that are asked for, no garbage is collected
while they are gathered, no example is drawn against a clock, and a part of those that are thorough may be asked for.

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


def part(text: str) -> slice:
    """Read I/N: each N-th, from number I on."""
    first, step = map(int, text.split("/"))
    return slice(first, None, step)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part", type=part, default="0/1", help="I/N: of what is thorough each N-th test, from number I on"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    thorough = [item for item in items if item.get_closest_marker("thorough")]
    left_out = set(thorough) - set(thorough[config.getoption("--part")])
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


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
