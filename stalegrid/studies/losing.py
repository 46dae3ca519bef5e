"""A grid that lost groups once more, on the simulator, without them from the versions on that the run recorded.

Does not know: how either run trains, how a group was lost.
"""

import dataclasses
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from stalegrid.checkpoints import FOLDER, CheckpointSettings, folder_of
from stalegrid.config import Settings
from stalegrid.plans import LostGroup, Task
from stalegrid.runs import Result, execute
from stalegrid.timing import DeviceSettings


def relive(task: Task, settings: Settings, losses: Sequence[LostGroup], folder: Path, *, quiet: bool = False) -> Result:
    """Repeat a run that lost groups.

    Args:
        task: what was trained.
        settings: how.
        losses: as the run recorded them.
        folder: new, for what is needed on the way.
        quiet: whether to print nothing.

    Returns:
        What came of the run to its end.
    """
    known: list[LostGroup] = []
    source: Path | None = None
    versions = [(version, list(some)) for version, some in groupby(losses, key=lambda loss: loss.version)]
    for version, some in versions:
        # It runs to its end each time, though what comes after the loss is of no use: a run has one end.
        execute(task, _again(settings, folder, version), resume=source, losses=known, quiet=quiet)
        known, source = [*known, *some], folder_of(folder / FOLDER, version)
    return execute(task, _again(settings, folder, None), resume=source, losses=known, quiet=quiet)


def _again(settings: Settings, folder: Path, every: int | None) -> Settings:
    return dataclasses.replace(
        settings,
        engine=dataclasses.replace(settings.engine, kind="simulator", processes=None, on_loss="end"),
        devices=DeviceSettings(),
        checkpoint=CheckpointSettings(every=every, keep=10**6),
        output=dataclasses.replace(settings.output, trace=False, folder=folder, loggers=[], callbacks=[]),
    )
