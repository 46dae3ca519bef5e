"""Whether somebody has asked a run for groups back that it has lost: a file in its folder says so.

Does not know: which groups a run has lost, how one comes back.
"""

from collections.abc import Iterable
from pathlib import Path

from stalegrid.written import COUNT, Maybe, is_file, read_json, to_json, write_text, writing

JOIN = "join.json"
"""The file that asks; who answers removes it."""


def ask_back(checkpoints: Path, groups: Iterable[int] | None) -> None:
    """Ask a run for groups back.

    Args:
        checkpoints: of the run.
        groups: which; None for all that are lost.

    Raises:
        OutputError: that cannot be written.
    """
    write_text(checkpoints / JOIN, to_json({"groups": None if groups is None else sorted(groups)}) + "\n")


def asked_back(checkpoints: Path, lost: Iterable[int]) -> list[int] | None:
    """Return which groups somebody asks for; None where nobody asks.

    Args:
        checkpoints: of the run.
        lost: groups that it has lost, which are meant where none are named.

    Raises:
        DataError: the file cannot be read.
    """
    path = checkpoints / JOIN
    if not is_file(path):
        return None
    wanted = read_json(path, {"groups": Maybe([COUNT])})["groups"]
    return sorted(lost) if wanted is None else list(wanted)


def answer(checkpoints: Path) -> None:
    """Note that nobody waits for an answer any more.

    Raises:
        OutputError: the file cannot be removed.
    """
    with writing(checkpoints):
        (checkpoints / JOIN).unlink(missing_ok=True)
