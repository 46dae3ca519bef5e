"""What a run needs whose stages measure the model themselves, and save it: the cuts of the model in evaluation mode.

Does not know: when it is measured, groups, files.

A model in evaluation mode is another list of operations: what drops values is not there, and what normalises reads its
statistics.  So it is captured a second time, in that mode and for slices of the test data, and cut at the same names.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from stalegrid.data import Slices
from stalegrid.errors import ConfigError
from stalegrid.objects import by_every_name, shapes_of, tensors_of
from stalegrid.observe import Item, OutputSettings, Saved
from stalegrid.partition import Partition, partition
from stalegrid.programs import Lent
from stalegrid.stages import StageLayout

AUTO: Literal["auto"] = "auto"
PIPELINE: Literal["pipeline"] = "pipeline"
SHARED: Literal["shared"] = "shared"

REMEDY = "let the observer measure it (output.evaluation: whole)"


@dataclass(frozen=True)
class Staged:
    """A model as its stages measure and save it.

    Args:
        partition: of the model in evaluation mode; None where there is no test data.
        lent: parameters that stages read of others.
        saved: what of the model each stage saves.
        metrics: names of what is measured besides.
    """

    partition: Partition | None
    lent: tuple[Lent, ...]
    saved: tuple[Saved, ...]
    metrics: tuple[str, ...] = ()

    def stages(self, model: nn.Module) -> list[nn.Module] | None:
        """Build the modules that measure, which share their parameters with the model.

        Args:
            model: a copy of the one that was cut; its stages that train are built after these, for the mode.
        """
        return None if self.partition is None else self.partition.stages(model)


def is_staged(output: OutputSettings, *, made: bool, stages: int) -> bool:
    """Return whether stages measure the model themselves.

    Args:
        output: what is asked for.
        made: whether the model is made stage by stage.
        stages: K.

    Raises:
        ConfigError: nobody would have the model that is asked for.
    """
    if output.evaluation != PIPELINE:
        whole = output.best is not None or output.js_distance or output.diagnose
        return output.evaluation == AUTO and made and stages > 1 and output.folder is not None and not whole
    if output.js_distance:
        raise ConfigError(
            f"stages measure the mean of groups alone (output.js_distance: true); {REMEDY}, or leave js_distance out"
        )
    if output.diagnose:
        raise ConfigError(
            f"a diagnosis is made of the whole model (output.diagnose: {output.diagnose}); {REMEDY}, or leave diagnose "
            "out"
        )
    if output.best is not None:
        raise ConfigError(
            f"a model that stages save is that of the last evaluation alone (output.best: {output.best}); {REMEDY}, or "
            "leave best out"
        )
    if output.folder is None:
        raise ConfigError(
            "stages save the model in parts, and no process has it as a whole (output.folder: none); name a folder "
            f"(out), or {REMEDY}"
        )
    return True


def make_staged(
    model: nn.Module,
    stages: Sequence[nn.Module],
    layouts: Sequence[StageLayout],
    measuring: Partition | None,
    metrics: tuple[str, ...],
) -> Staged:
    """Say who lends what to whom, and who saves what, of a model that its stages measure.

    Args:
        model: that was cut.
        stages: its parts as it trains, with the model's own parameters.
        layouts: of them.
        measuring: the model as it was cut in evaluation mode; None where there is no test data.
        metrics: names of what is measured besides.

    Raises:
        ConfigError: it cannot be measured or saved in parts.
    """
    parts = [] if measuring is None else measuring.stages(model)
    model.train()
    owners = _owners(model, layouts)
    return Staged(measuring, tuple(_lent(parts, owners)), _saved(model, owners, stages, parts), metrics)


def cut_measured(
    tried: nn.Module, test: Slices, cut: Partition, blocks: Sequence[str] | None, apart: bool
) -> Partition:
    """Cut a model in evaluation mode, for slices of the test data, where it was cut as it trains.

    Args:
        tried: the model, or what it can be tried with; left as it is.
        test: data on which it is measured.
        cut: of the model as it trains.
        blocks: that were named to cut it.
        apart: whether cuts may lie between the uses of a parameter.

    Raises:
        ConfigError: it cannot be cut so.
    """
    # The last slice may be a smaller one.
    ends = [test.inputs(number) for number in dict.fromkeys((0, len(test) - 1))]
    first, *more = {shapes_of(inputs): inputs for inputs in ends}.values()
    try:
        return partition(
            tried, first, len(cut.cuts) + 1, cut.names, test.form, blocks, apart=apart, more=more, training=False
        )
    except ConfigError as problem:
        raise ConfigError(
            f"the stages cannot measure the model, as it is in evaluation mode: {problem}; {REMEDY}"
        ) from problem


Owners = dict[int, tuple[int, str]]
"""The stage that has a tensor in its vector or among its counters, and what it calls it, by identity."""


def _owners(model: nn.Module, layouts: Sequence[StageLayout]) -> Owners:
    known = by_every_name(model)
    found: Owners = {}
    for stage, layout in enumerate(layouts):
        for name in (*(entry.name for entry in layout.entries), *(name for name, _ in layout.counters)):
            found[id(known[name])] = stage, name
    return found


def _lent(parts: Sequence[nn.Module], owners: Owners) -> Iterator[Lent]:
    """Yield what stages read in an evaluation of what others have."""
    for stage, part in enumerate(parts):
        for name, tensor in tensors_of(part).items():
            owner, known = owners.get(id(tensor), (stage, name))
            if owner == stage:
                continue
            if not isinstance(tensor, nn.Parameter):
                raise ConfigError(
                    f"in evaluation mode a stage reads a buffer of another one (name: {name}, stages: {stage}, "
                    f"{owner}); {REMEDY}, or cut elsewhere"
                )
            yield Lent(owner, known, stage, name)


def _saved(
    model: nn.Module, owners: Owners, stages: Sequence[nn.Module], parts: Sequence[nn.Module]
) -> tuple[Saved, ...]:
    """Return what each stage saves: what it owns, or has, no lower one has; the first one what nobody has."""
    holders = {id(tensor): stage for tensor, stage in _held(stages, parts)} | {i: k for i, (k, _) in owners.items()}
    names = {id(tensor): name for name, tensor in tensors_of(model).items()}
    state = model.state_dict(keep_vars=True)
    items: list[tuple[list[Item], list[Item]]] = [([], []) for _ in stages]
    for key, tensor in state.items():
        if id(tensor) not in names:
            raise ConfigError(
                f"the state of the model holds what is no parameter or buffer of it (name: {key!r}), which no stage "
                f"has; {REMEDY}"
            )
        items[holders.get(id(tensor), 0)][0].append(Item(key, names[id(tensor)], tensor.nbytes))
    kept = {id(tensor) for tensor in state.values()}
    for name, tensor in tensors_of(model).items():
        if id(tensor) not in kept:
            items[holders.get(id(tensor), 0)][1].append(Item(name, name, tensor.nbytes))
    return tuple(Saved(tuple(mine), tuple(rest)) for mine, rest in items)


def _held(stages: Sequence[nn.Module], parts: Sequence[nn.Module]) -> Iterator[tuple[Tensor, int]]:
    """Yield tensors with a stage that has them, the lowest one last."""
    for modules in (parts, stages):
        for stage in reversed(range(len(modules))):
            yield from ((tensor, stage) for tensor in tensors_of(modules[stage]).values())
