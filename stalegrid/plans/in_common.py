"""Refuses what training would change beside the model: globals and class attributes.

Does not know: what a plan consists of, how anything is tried.

All units of a process have such state in common and those of other processes have their own, trials before a run leave
their trace in it, and no checkpoint has it: numbers that depend on it would be those of no plain loop.  To make a plan
is to call all that training calls, so what has changed afterwards shows it.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from stalegrid.data import inside
from stalegrid.errors import ConfigError
from stalegrid.objects import in_common, is_list, replaced
from stalegrid.plans.choices import Choices
from stalegrid.plans.task import Task

T = TypeVar("T")


def planned(make: Callable[[], T], task: Task, asked: Choices) -> T:
    """Make a plan, and once more where caches were filled at their first use, to see whether it was only that.

    Args:
        make: makes the plan, with trials of all that is trained.
        task: what is trained.
        asked: how.

    Returns:
        The plan.

    Raises:
        ConfigError: the plan cannot be made, or making it changes what no copy of the model, the loss or the optimizer
            has for itself.  What only goes on growing, as a list in which a loss keeps its values, is warned of, and
            so is what reading the data changes.
    """
    first, read = _of_training(task, asked), _of_data(task)
    try:
        plan = make()
    except ConfigError:
        # What comes of a state that nobody sees says less, such as that two forwards are not alike.
        _refuse(_replaced(first, _of_training(task, asked)))
        raise
    second = _of_training(task, asked)
    _refuse(_replaced(first, second))
    added = _changed(first, second)
    if any(not is_list(first.get(name)) for name in added):
        plan, third = make(), _of_training(task, asked)
        _refuse(_replaced(second, third))
        added = _changed(second, third)
    _tell("training adds to", added)
    _tell("reading data changes", _replaced(read, _of_data(task)))
    return plan


def _of_training(task: Task, asked: Choices) -> dict[str, Any]:
    functions = (task.loss, task.optimizer, task.scheduler, task.metrics)
    return in_common([task.model, *functions, asked.method, asked.method.name, asked.mixing])


def _of_data(task: Task) -> dict[str, Any]:
    # Only its code: data may be large, and samples are held against a second reading.
    sets = [*inside(task.data), *inside(task.test)]
    return in_common((), [*map(type, sets), *(getattr(one, "collate_fn", None) for one in sets)])


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name, mark in after.items() if mark != before.get(name)]


def _replaced(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name, mark in after.items() if replaced(before.get(name), mark)]


def _refuse(names: Sequence[str]) -> None:
    if names:
        raise ConfigError(
            f"training changes what is one for all copies of a model, a loss or an optimizer in a process (it is: "
            f"{names[0]}), but each group, learner or stage has a copy of its own, and trials before the run have "
            "changed it too; keep it in an attribute of the object that uses it, made in __init__: let a loss that "
            "counts be an object with __call__, or a module"
        )


def _tell(what: str, names: Sequence[str]) -> None:
    for name in names:
        warnings.warn(
            f"{what} what is one for all in a process (it is: {name}): trials before the run have, and each process "
            "that trains has its own; no number may depend on it",
            stacklevel=4,
        )
