"""What holds for all tests: no garbage is collected while they are gathered, and no example is drawn against a clock.

Whatever torch and 200 files of tests hold stays to the end: to look through it again and again takes half the time of
gathering, and a tenth of that of the tests.
"""

import gc

from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()
