"""A grid that lost groups once more, on the simulator, without them from the versions on that the run recorded.

Does not know: how either run trains, how a group was lost.
"""

import dataclasses
from pathlib import Path

from stalegrid.checkpoints import FOLDER, CheckpointSettings, folder_of
from stalegrid.config import Settings
from stalegrid.plans import ALL, Membership, Task
from stalegrid.runs import Result, execute
from stalegrid.timing import DeviceSettings


def relive(task: Task, settings: Settings, membership: Membership, folder: Path, *, quiet: bool = False) -> Result:
    """Repeat a run that lost groups, some of which may have come back.

    Args:
        task: what was trained.
        settings: how.
        membership: as the run recorded it.
        folder: new, for what is needed on the way.
        quiet: whether to print nothing.

    Returns:
        What came of the run to its end.
    """
    known, source = ALL, None
    for version in membership.versions:
        # It runs to its end each time, though what comes after the change is of no use: a run has one end.
        execute(task, _again(settings, folder, version), resume=source, membership=known, quiet=quiet)
        known, source = membership.until(version), folder_of(folder / FOLDER, version)
    return execute(task, _again(settings, folder, None), resume=source, membership=known, quiet=quiet)


def _again(settings: Settings, folder: Path, every: int | None) -> Settings:
    return dataclasses.replace(
        settings,
        engine=dataclasses.replace(settings.engine, kind="simulator", processes=None, on_loss="end"),
        devices=DeviceSettings(),
        checkpoint=CheckpointSettings(every=every, keep=10**6),
        output=dataclasses.replace(settings.output, trace=False, folder=folder, loggers=[], callbacks=[]),
    )
