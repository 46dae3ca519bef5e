"""What a task measures on its test data beside the loss, tried before anything starts.

Does not know: grids, engines, who measures while a run goes on.
"""

from typing import Any

import torch
from torch import nn

from stalegrid.data import Slices
from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import call, check_readers, copied, spread
from stalegrid.observe import PREFIX, Best, Metrics, OutputSettings, class_scores, count_correct
from stalegrid.plans.task import Task

LOSS, ACCURACY = "loss", "accuracy"
"""What is measured by itself."""


def check_measured(task: Task, model: nn.Module, test: Slices | None, best: str | None) -> None:
    """Try the metrics on the first slice of the test data, and whether the best model can be told.

    Args:
        task: what is trained.
        model: in the type of the run; left as it is.
        test: data that the loss accepts; None for none.
        best: by which number the best model is kept; None for none.

    Raises:
        ConfigError: a metric fails, gives no number or has no possible name; or nothing of that name is measured.
    """
    if best is None and not task.metrics:
        return
    if test is None:
        what = f"metrics: {', '.join(map(str, task.metrics))}" if task.metrics else f"best: {best}"
        raise ConfigError(f"metrics are measured on test data, and there is none ({what}); give test data")
    for name, metric in task.metrics.items():
        _check_named(name)
        check_readers(task.model, **{f"metric {name}": metric})
    inputs, targets = test[0]
    with torch.no_grad():
        outputs = spread(call(copied(model).eval(), test.form, inputs))
        measured = _tried(task, outputs, targets)
    if best is not None:
        accuracy = not count_correct(outputs[0], targets).isnan()
        _check_best(task, best, [PREFIX + LOSS, *([PREFIX + ACCURACY] if accuracy else []), *measured])


def check_apart(model: nn.Module, test: Slices | None, output: OutputSettings) -> None:
    """Check that it can be measured how far groups are apart in what they predict, where that is asked for.

    Args:
        model: in the type of the run; left as it is.
        test: data that the loss accepts; None for none.
        output: what is asked for.

    Raises:
        ConfigError: there is no test data, or outputs are no scores of classes.
    """
    if not output.js_distance:
        return
    if test is None:
        raise ConfigError(
            "the distance of the groups' predictions is measured on test data, and there is none (output.js_distance: "
            "true); give test data"
        )
    inputs, targets = test[0]
    with torch.no_grad():
        outputs = spread(call(copied(model).eval(), test.form, inputs))
    if class_scores(outputs[0], targets) is None:
        raise ConfigError(
            "outputs are no scores of classes, one whole number a target, or nobody can tell which dimension has them "
            f"(output.js_distance: true, outputs: {_shown(outputs[0])}, targets: {_shown(targets)}); leave it out"
        )


def check_shared(task: Task, output: OutputSettings) -> None:
    """Refuse what units cannot measure each on a share of the test data.

    Args:
        task: what is trained.
        output: what is asked for.

    Raises:
        ConfigError: something sees all outputs of an evaluation, or no process can have the whole model.
    """
    remedy = "let the observer measure all (output.evaluation: whole)"
    if task.source is not None:
        raise ConfigError(f"units that share an evaluation have the whole model each, and none has it here; {remedy}")
    if task.metrics:
        names = ", ".join(map(str, task.metrics))
        raise ConfigError(f"a metric sees all outputs, of which each unit has a share (metrics: {names}); {remedy}")
    if output.js_distance:
        raise ConfigError(f"units measure the mean of groups alone (output.js_distance: true); {remedy}")


def _shown(tree: Any) -> str:
    """Return what a tensor is like, or what else something is."""
    if isinstance(tree, torch.Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')} {tuple(tree.shape)}"
    return type(tree).__name__


def _check_named(name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier() or name in (LOSS, ACCURACY):
        raise ConfigError(
            f"a metric needs a name of letters, digits and _, other than {LOSS} and {ACCURACY}, which are measured by "
            f"themselves (metric: {name!r}); name it otherwise"
        )


def _tried(task: Task, outputs: tuple[Any, ...], targets: Any) -> list[str]:
    metrics = Metrics(task.metrics, torch.device("cpu"))
    try:
        metrics.reset()
        metrics.update(outputs, targets)
        found = metrics.compute()
    except TrainingError as problem:
        raise ConfigError(f"{problem}; it was tried on the first samples of the test data") from problem
    for name, value in found.items():
        if value is None:
            raise ConfigError(
                f"a metric gives NaN, which is no number (metric: {name.removeprefix(PREFIX)}); let it return a number "
                "for the first samples of the test data too"
            )
    return list(found)


def _check_best(task: Task, asked: str, measured: list[str]) -> None:
    best = Best(asked)
    if best.name not in measured:
        raise ConfigError(
            f"the best model is told by what is measured on the test data (asked for: {asked}); that is: "
            f"{', '.join(measured)}, each with a minus where the smallest is best"
        )
    metric = task.metrics.get(best.name.removeprefix(PREFIX))
    usual = {PREFIX + LOSS: False, PREFIX + ACCURACY: True}
    largest = usual.get(best.name, getattr(metric, "higher_is_better", None))
    if largest is not None and largest != best.largest:
        shown = best.name if largest else f"-{best.name}"
        raise ConfigError(f"the {'largest' if largest else 'smallest'} is best (asked for: {asked}); name it {shown}")
