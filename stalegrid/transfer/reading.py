"""A checkpoint of a grid read as one model, whatever its shape was.

Does not know: what is done with the model, plans.

The checkpoint itself says how the vectors of its stages read and what the numbers of an optimizer stand for, so neither
the model nor the settings of the run are needed.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from stalegrid.checkpoints import Checkpoint, name_of_part, unit_of_part
from stalegrid.consensus import weights_of
from stalegrid.data import TrainingSettings
from stalegrid.errors import ConfigError, DataError
from stalegrid.objects import State, first_names, joined, tensors_of
from stalegrid.programs import OBSERVER, Unit
from stalegrid.stages import StageLayout, before_batches, by_names
from stalegrid.transfer.whole import Whole, joined_stages, mean_of_groups


def facts_of(model: nn.Module, layouts: Sequence[StageLayout]) -> State:
    """Return what a manifest says of the model, for whoever reads the checkpoint without it.

    Args:
        model: in the type of the run.
        layouts: of its stages.

    Returns:
        ``names``: first names of tensors by their other ones; ``state``: keys of the state dict; ``still``: first names
        of what no part of the checkpoint has, such as frozen parameters.
    """
    first = first_names(model)
    moving = {name for layout in layouts for name in (*layout.names, *(name for name, _ in layout.counters))}
    known = {first.get(name, name) for name in moving}
    return {
        "names": {name: own for name, own in first.items() if name != own},
        "state": list(model.state_dict()),
        "still": [name for name in tensors_of(model) if name not in known],
    }


def shape_of(checkpoint: Checkpoint) -> tuple[list[int], int]:
    """Return the groups that a checkpoint has, ascending, and K of the grid that wrote it.

    Raises:
        ConfigError: it was no grid.
    """
    units = [unit_of_part(name) for name in checkpoint.manifest["parts"] if name != name_of_part(OBSERVER)]
    grid = [unit for unit in units if unit is not None]
    if len(grid) < len(units) or not grid:
        raise ConfigError(
            f"a run with parameter servers goes on as it was, and in no other shape (checkpoint: {checkpoint.folder}); "
            "resume it with the settings that it had"
        )
    return sorted({unit.group for unit in grid}), 1 + max(unit.stage for unit in grid)


def read_whole(checkpoint: Checkpoint, group: int | None = None) -> Whole:
    """Return the model of a checkpoint and the state of its training.

    Args:
        checkpoint: of a grid.
        group: whose; None for the mean over all groups.

    Raises:
        ConfigError: there is no such group, or the checkpoint is of no grid.
        DataError: a file cannot be read.
    """
    groups, stages = shape_of(checkpoint)
    if group is not None and group not in groups:
        raise ConfigError(f"the checkpoint has no such group (group: {group}, groups: {', '.join(map(str, groups))})")
    chosen = groups if group is None else [group]
    first = partial(_first, _said(checkpoint)["names"])
    return joined_stages([_stage(checkpoint, [Unit(s, k) for s in chosen], first) for k in range(stages)])


def in_flight(checkpoint: Checkpoint) -> int:
    """Return how many batches of all groups were forwarded, and not used by an update, when it was saved."""
    groups, _ = shape_of(checkpoint)
    return sum(len(_agent(checkpoint, Unit(s, 0))["ledger"]["forwarded"]) for s in groups)


def _first(names: Mapping[str, str], name: str) -> str:
    return names.get(name, name)


def _said(checkpoint: Checkpoint) -> State:
    try:
        found: State = checkpoint.manifest["model"]
    except KeyError as problem:
        raise DataError(f"the checkpoint does not say how it reads (folder: {checkpoint.folder})") from problem
    return found


def _agent(checkpoint: Checkpoint, unit: Unit) -> State:
    found: State = joined(*checkpoint.part(name_of_part(unit)))["agent"]
    return found


def _stage(checkpoint: Checkpoint, units: Sequence[Unit], first: "partial[str]") -> Whole:
    """Return the mean of a stage over some units that have it."""
    agents = [_agent(checkpoint, unit) for unit in units]
    reads = agents[0]["reads"]
    alone = [first(entry[0]) for entry in reads["entries"] if entry[1] >= reads["mixed"]]
    sizes = _sizes(checkpoint)
    weights = weights_of([sizes[unit.group] for unit in units])
    return mean_of_groups([_unit(agent, checkpoint.version, first) for agent in agents], alone, weights)


def _sizes(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Return the samples of each group's batch, as the run was asked for."""
    settings = checkpoint.manifest["settings"]
    return TrainingSettings(**settings["training"]).sizes(settings["grid"]["groups"])


def _unit(agent: State, version: int, first: "partial[str]") -> Whole:
    reads = agent["reads"]
    # They are trained again, and statistics should count them once.
    weights = before_batches(agent["weights"], agent["stage"])
    flat, counters = weights["flat"], weights["counters"]
    tensors = {first(name): flat.as_strided(shape, stride, offset) for name, offset, shape, stride in reads["entries"]}
    tensors |= {first(name): counter for name, counter in counters.items()}
    names = [list(map(first, group)) for group in reads["groups"]]
    kinds = reads["optimizer"], reads["scheduler"]
    state = by_names(agent["optimizer"], names, reads["made"], *kinds, agent["scheduler"])
    return Whole(tensors, state, version)
