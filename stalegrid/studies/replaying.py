"""A run whose order timing made once more, on the simulator, in the order that the run recorded.

Does not know: how either run trains.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stalegrid.checkpoints import CheckpointSettings
from stalegrid.config import Settings
from stalegrid.errors import ConfigError, DataError
from stalegrid.methods import ServerMethod, find
from stalegrid.observe import saved, unsaved
from stalegrid.plans import ALL, Membership, Task, rules_of
from stalegrid.programs import DELIVERIES, MEETINGS, first_updates
from stalegrid.recipes import RunConfig
from stalegrid.report import read_config, read_model, read_summary
from stalegrid.runs import execute
from stalegrid.studies.losing import relive
from stalegrid.timing import DeviceSettings
from stalegrid.written import is_folder


@dataclass(frozen=True)
class Replayed:
    """A run held against its replay.

    Attributes:
        version: of the model that both have.
        difference: largest absolute difference of any parameter or buffer.
        equal: whether all have the same bits.
    """

    version: int
    difference: float
    equal: bool


def recorded_config(folder: Path) -> RunConfig:
    """Return how a run was trained and what.

    Args:
        folder: of the run.

    Raises:
        ConfigError: it is of no run, or of one whose model and data are not named.
    """
    found = read_config(folder)
    if "model" not in found:
        record = f'servers=ServerSettings(deliveries="{folder / DELIVERIES}")'
        if is_folder(folder / MEETINGS):
            record = f'mixing=MixingSettings(meetings="{folder / MEETINGS}")'
        raise ConfigError(
            f"the run says nothing of its model and data (folder: {folder}), it was started from Python; repeat it "
            f'with train(..., engine="simulator", {record})'
        )
    return RunConfig.of(found)


def replay(task: Task, settings: Settings, folder: Path, *, quiet: bool = False) -> Replayed:
    """Repeat a run up to the version of its last model, and compare the models.

    Args:
        task: what was trained.
        settings: how, as the run wrote them down.
        folder: of the run.
        quiet: whether to print nothing.

    Raises:
        ConfigError: the folder holds no such run, or nothing to compare with yet.
    """
    method = find(settings.method.name)
    membership = _membership(folder)
    met = is_folder(folder / MEETINGS)
    if not isinstance(method, ServerMethod) and not membership.lost and not met:
        raise ConfigError(
            f"the order of a grid is fixed by its program, there is none to replay (method: {method.name}); run it "
            "again with train --config, or see verify"
        )
    try:
        version, (state, rest) = read_summary(folder)["version"], read_model(folder)
    except DataError as problem:
        raise ConfigError(f"the run has no model yet to compare with (folder: {folder}): {problem}") from problem
    if met:
        mixing = dataclasses.replace(settings.mixing, meetings=folder / MEETINGS)
        again = dataclasses.replace(_here(settings), mixing=mixing)
        return _compared(version, {**state, **rest}, execute(task, again, quiet=quiet).model)
    with tempfile.TemporaryDirectory(prefix="stalegrid-replay-") as scratch:
        if not isinstance(method, ServerMethod):
            lived = relive(task, settings, membership, Path(scratch) / "run", quiet=quiet)
            return _compared(version, {**state, **rest}, lived.model)
        record = Path(scratch) / DELIVERIES
        rules, _ = rules_of(settings.servers, method)
        record.write_text(first_updates(folder / DELIVERIES, rules, version))
        again = dataclasses.replace(_here(settings), servers=dataclasses.replace(settings.servers, deliveries=record))
        model = execute(task, again, quiet=quiet).model
    return _compared(version, {**state, **rest}, model)


def _here(settings: Settings) -> Settings:
    """Return settings of the same numbers, on the simulator and without anything written."""
    return dataclasses.replace(
        settings,
        engine=dataclasses.replace(settings.engine, kind="simulator", processes=None, on_loss="end"),
        devices=DeviceSettings(),
        checkpoint=CheckpointSettings(),
        output=dataclasses.replace(settings.output, trace=False, folder=None, loggers=[], callbacks=[]),
    )


def _membership(folder: Path) -> Membership:
    try:
        return Membership.of(read_summary(folder))
    except DataError:  # said where it is needed
        return ALL


def _compared(version: int, recorded: Mapping[str, Tensor], model: nn.Module) -> Replayed:
    found = {**saved(model), **unsaved(model)}
    pairs = [(recorded[name], found[name]) for name in recorded]
    worst = max((float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel()), default=0.0)
    return Replayed(version, worst, all(torch.equal(a, b) for a, b in pairs))
