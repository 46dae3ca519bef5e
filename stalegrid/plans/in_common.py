"""Refuses what training would change beside the model: globals and class attributes.

Does not know: what a plan consists of, how anything is tried.

All units of a process have such state in common and those of other processes have their own, trials before a run leave
their trace in it, and no checkpoint has it: numbers that depend on it would be those of no plain loop.  To make a plan
is to call all that training calls, so what has changed afterwards shows it.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

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
            has for itself.  What only goes on growing, as a list in which a loss keeps its values, is warned of.
    """
    first = _seen(task, asked)
    try:
        plan = make()
    except ConfigError:
        # What comes of a state that nobody sees says less, such as that two forwards are not alike.
        _refuse(_replaced(first, _seen(task, asked)))
        raise
    second = _seen(task, asked)
    _refuse(_replaced(first, second))
    added = _changed(first, second)
    if any(not is_list(first.get(name)) for name in added):
        plan, third = make(), _seen(task, asked)
        _refuse(_replaced(second, third))
        added = _changed(second, third)
    for name in added:
        _tell(name)
    return plan


def _seen(task: Task, asked: Choices) -> dict[str, Any]:
    functions = (task.loss, task.optimizer, task.scheduler, task.metrics)
    return in_common([task.model, *functions, asked.method, asked.method.name, asked.mixing])


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name, mark in after.items() if mark != before.get(name)]


def _replaced(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    return (name for name, mark in after.items() if replaced(before.get(name), mark))


def _refuse(names: Iterable[str]) -> None:
    if name := next(iter(names), None):
        raise ConfigError(
            f"training changes what is one for all copies of a model, a loss or an optimizer in a process (it is: "
            f"{name}), but each group, learner or stage has a copy of its own, and trials before the run have changed "
            "it too; keep it in an attribute of the object that uses it, made in __init__: let a loss that counts be "
            "an object with __call__, or a module"
        )


def _tell(name: str) -> None:
    warnings.warn(
        f"training adds to what is one for all copies of a model, a loss or an optimizer in a process (it is: {name}): "
        "trials before the run have, and each process that trains adds to its own; numbers must not depend on it",
        stacklevel=4,
    )
