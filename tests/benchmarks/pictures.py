"""Pictures that are kept, held against those that are drawn now."""

import re
from pathlib import Path

import matplotlib
import pytest


def assert_same(drawn: Path, kept: Path, command: str) -> None:
    """Hold a picture against the one that is kept, bytes with bytes, unless another matplotlib drew that.

    Args:
        drawn: now.
        kept: among the documents.
        command: draws it anew.
    """
    (version,) = re.findall(r"<dc:title>Matplotlib v([^,]*),", kept.read_text())
    if version != matplotlib.__version__:
        pytest.skip(f"{kept.name} is of matplotlib {version}, and {matplotlib.__version__} is here")
    assert drawn.read_bytes() == kept.read_bytes(), f"{kept.name} shows other results; {command} draws it anew"
