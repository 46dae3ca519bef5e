"""Scripts that are run as they stand, by this process: it has loaded what they need, and so has its warm process.

Does not know: what scripts do, what they print.
"""

import runpy
import sys
import warnings
from pathlib import Path

import pytest

UNSEEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""What the interpreter does not show of others' code."""


def run_script(script: Path, folder: Path, *arguments: str) -> None:
    """Run a script as ``__main__``, as ``python SCRIPT ARGUMENTS`` does; what fails or warns is raised.

    Args:
        script: its file.
        folder: the current one meanwhile.
        arguments: of its command line.

    Raises:
        AssertionError: it warns.
    """
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()
        for kind in UNSEEN:
            warnings.simplefilter("ignore", kind)
        patch.setattr(sys, "argv", [str(script), *arguments])
        patch.syspath_prepend(script.parent)
        patch.chdir(folder)
        runpy.run_path(str(script), run_name="__main__")
    assert not told, [str(one.message) for one in told]
