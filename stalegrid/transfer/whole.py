"""One model and the state of its training, put together of the parts that stages and groups have.

Does not know: where the parts come from, files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.consensus import weighed
from stalegrid.errors import ConfigError
from stalegrid.objects import first_names, renew, tensors_of
from stalegrid.stages import NamedGroup, NamedState, alike


@dataclass(frozen=True)
class Whole:
    """A model and the state of its training.

    Args:
        tensors: parameters and buffers that training may change, by the first names that the model has for them.
        training: state of the optimizer and its schedule.
        version: updates that were made.
        unaveraged: names of tensors that are those of the first of several groups, since they have no mean; the model
            can make them anew.
    """

    tensors: dict[str, Tensor]
    training: NamedState
    version: int
    unaveraged: tuple[str, ...] = field(default=())


def mean_of_groups(groups: Sequence[Whole], unaveraged: Iterable[str], weights: Sequence[float]) -> Whole:
    """Return the mean of what groups have.

    What is no floating tensor has none, nor has a single number, such as the count of steps, of which all groups have
    the same: it is that of the first group.

    Args:
        groups: of the same stages.
        unaveraged: names of tensors that have no mean.
        weights: of the groups.
    """
    first, own = groups[0], set(unaveraged)
    if len(groups) == 1:
        return first
    tensors = {
        name: tensor if name in own else mean([group.tensors[name] for group in groups], weights)
        for name, tensor in first.tensors.items()
    }
    states = [(group.training.state, weight) for group, weight in zip(groups, weights, strict=True)]
    state = {
        name: _mean_entry([(s[name], weight) for s, weight in states if name in s]) for own, _ in states for name in own
    }
    return replace(first, tensors=tensors, training=replace(first.training, state=state), unaveraged=tuple(own))


def mean(values: Sequence[Any], weights: Sequence[float]) -> Any:
    """Return the mean of tensors; what all have alike stays as it is, which the sum of three would round."""
    first, *others = values
    if not isinstance(first, Tensor) or not first.is_floating_point() or not first.dim():
        return first
    if all(torch.equal(first, other) for other in others):
        return first
    total = first * weights[0]
    for other, weight in zip(others, weights[1:], strict=True):
        total += weighed(other, weight)
    return total.div_(sum(weights))


def _mean_entry(entries: Sequence[tuple[dict[str, Any], float]]) -> dict[str, Any]:
    """Return the mean of what an optimizer keeps for a parameter, of those groups that keep it."""
    found = {key: [(entry[key], weight) for entry, weight in entries if key in entry] for key in entries[0][0]}
    return {key: mean([value for value, _ in pairs], [weight for _, weight in pairs]) for key, pairs in found.items()}


def joined_stages(stages: Sequence[Whole]) -> Whole:
    """Put stages together; a stage that trains nothing has no part in the state of the optimizer."""
    tensors = {name: tensor for stage in stages for name, tensor in stage.tensors.items()}
    training = [stage.training for stage in stages if any(group.names for group in stage.training.groups)]
    first = training[0]
    groups: list[NamedGroup] = []
    for own in training:
        for group in own.groups:
            _take(groups, group)
    groups.sort(key=lambda group: group.place)  # which keeps the order of the stages within a place
    state = {name: entry for own in training for name, entry in own.state.items()}
    unaveraged = tuple(name for stage in stages for name in stage.unaveraged)
    return Whole(tensors, replace(first, groups=groups, state=state), stages[0].version, unaveraged)


def _take(groups: list[NamedGroup], group: NamedGroup) -> None:
    for known in groups:
        if known.place == group.place and alike(known.options, group.options):
            known.names.extend(group.names)
            return
    groups.append(replace(group, names=list(group.names)))


def fill_whole(model: nn.Module, whole: Whole, source: str) -> None:
    """Give a model what a checkpoint has of it.

    Args:
        model: that was trained, or another one like it.
        whole: what there is.
        source: where it is from, for messages.

    Raises:
        ConfigError: the checkpoint is of another model.
    """
    first, own = first_names(model), tensors_of(model)
    for name, tensor in whole.tensors.items():
        found = own.get(first.get(name, name))
        if found is None or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            here = "none" if found is None else f"{tuple(found.shape)} {found.dtype}"
            raise ConfigError(
                f"the checkpoint is of another model (tensor: {name}, {tuple(tensor.shape)} {tensor.dtype}, here: "
                f"{here}, checkpoint: {source}); give the model that was trained, in its type"
            )
        with torch.no_grad():
            found.copy_(tensor)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    missing = trained - {first.get(name, name) for name in whole.tensors}
    if missing:
        raise ConfigError(
            f"the checkpoint is of another model (parameter: {min(missing)}, which it lacks, checkpoint: {source}); "
            "give the model that was trained"
        )
    if whole.unaveraged:
        renew(model)
