"""A run that begins anew in the folder of one like it that came to no whole checkpoint.

Does not know: why it came to none, what runs do.

Only what such a run has written goes, and only where the folder is that of the same run.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from stalegrid.checkpoints.compared import unlike
from stalegrid.checkpoints.layout import FOLDER
from stalegrid.checkpoints.taken import check_free, end_of, forget_after
from stalegrid.errors import ConfigError
from stalegrid.observe import (
    BEST,
    CONFIG,
    FAILURE,
    INDEX,
    LIMITS,
    METRICS,
    MODEL,
    SUMMARY,
    TRACE,
    UNITS,
    UNSAVED,
    UNSAVED_BEST,
    UNSAVED_INDEX,
    forget_parts,
)
from stalegrid.programs import DELIVERIES
from stalegrid.written import exists, is_folder, read_yaml, settle, sweep, writing

_WRITTEN = (
    METRICS,
    SUMMARY,
    LIMITS,
    FAILURE,
    MODEL,
    INDEX,
    BEST,
    UNSAVED,
    UNSAVED_BEST,
    UNSAVED_INDEX,
    UNITS,
    TRACE,
    CONFIG,
    DELIVERIES,
)


def check_left(run: Path) -> None:
    """Check that a folder is empty, or that of a run with checkpoints that has neither come to its end nor goes on.

    Raises:
        ConfigError: it is something else.
    """
    if not is_folder(run):
        raise ConfigError(f"this is no folder (out: {run}); name another one")
    checkpoints = run / FOLDER
    if not is_folder(checkpoints) and any(run.iterdir()):
        raise ConfigError(
            f"the output folder exists, and is not that of a run with checkpoints (out: {run}); name a new one or "
            "remove it"
        )
    check_free(checkpoints)
    check_not_ended(run)


def check_not_ended(run: Path) -> None:
    """Check that a run has not come to its end.

    Raises:
        ConfigError: it has.
    """
    version = end_of(run / FOLDER)
    if version is not None:
        raise ConfigError(
            f"the run has come to its end (folder: {run}, version: {version}), and there is nothing to go on with: its "
            "results are there; for more updates begin another run, or name one of its checkpoints to go back to that"
        )


def check_same(run: Path, settings: Mapping[str, Any], measured: Collection[str]) -> None:
    """Check that a folder is that of a run with the same settings, if it has come as far as to write them.

    Args:
        run: its folder.
        settings: of the run that is to begin there, as plain values.
        measured: what of them is not asked for but measured, and may be otherwise.

    Raises:
        ConfigError: it is of another run.
    """
    if not exists(run / CONFIG):
        if others := [path.name for path in run.iterdir() if path.name != FOLDER]:
            raise ConfigError(
                f"the output folder holds no {CONFIG} of a run, but something else (out: {run}, found: {others[0]}); "
                "name a new one or remove it"
            )
        return
    then = read_yaml(run / CONFIG)
    shown = unlike(then if isinstance(then, dict) else {}, settings, measured)
    if shown:
        raise ConfigError(
            f"the output folder is that of another run ({shown}, out: {run}); ask for the same, name a new one, or "
            "remove it"
        )


def clear(run: Path) -> None:
    """Remove what a run that came to no whole checkpoint has written.

    Raises:
        OutputError: something cannot be removed.
    """
    forget_after(run / FOLDER, -1)
    settle(run)
    sweep(run)
    with writing(run):
        for name in _WRITTEN:
            (run / name).unlink(missing_ok=True)
        forget_parts(run)
