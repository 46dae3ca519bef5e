"""What a task brings, as a run takes it: its model in the type of the run, its data in batches, both checked.

Does not know: grids, stages, methods, engines.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from stalegrid.data import (
    EVEN,
    Batches,
    CropAndFlip,
    Example,
    Slices,
    Stream,
    TrainingSettings,
    check_repeats,
    check_size,
    check_stream,
    is_stream,
    opened,
    reading_of,
)
from stalegrid.errors import ConfigError, DataError
from stalegrid.loading import loading
from stalegrid.objects import (
    Form,
    call,
    cast,
    check_functions,
    check_hooks,
    check_memory,
    check_readers,
    copied,
    labels,
    ordered,
    spread,
)
from stalegrid.plans.task import Task
from stalegrid.seeds import drawing
from stalegrid.stages import Precision, parts_of

TEST_BATCH = 125
"""Samples that are evaluated at once unless somebody says otherwise: activations of more leave a processor's caches (a
quarter slower at 500)."""


def make_batches(
    task: Task, training: TrainingSettings, groups: int, micro_batches: int, here: Collection[int] | None = None
) -> Batches | Stream:
    """Return the training batches of every group.

    Args:
        task: what is trained.
        training: how much.
        groups: S.
        micro_batches: M.
        here: groups whose batches will be asked for; all if left out.
    """
    data = opened(task.data)
    if is_stream(data):
        return _stream(data, task.augment, training, groups, micro_batches, here)
    return Batches(
        data,
        groups=groups,
        batch_size=training.batch_size,
        micro_batches=micro_batches,
        seed=training.seed,
        augment=task.augment,
        dtype=dtype_of(training),
        drop_last=training.drop_last,
        split=training.split,
    )


def _stream(
    data: Dataset[Any],
    augment: CropAndFlip | None,
    training: TrainingSettings,
    groups: int,
    micro_batches: int,
    here: Collection[int] | None,
) -> Stream:
    if augment is not None:
        raise ConfigError(
            f"augment needs an ArrayDataset, not {type(data).__name__}; let the stream transform its own items"
        )
    if training.split != EVEN:
        raise ConfigError(
            f"the labels of a stream show only as it is gone through, and samples are dealt to groups before (split: "
            f"{training.split}); take split even, or data that has indices"
        )
    if training.drop_last is False:
        raise ConfigError(
            "how many samples are left at the end of a stream shows only there, when its updates are counted and its "
            "shapes are known (training.drop_last: false); leave it out, or take data that has indices"
        )
    return Stream(
        data,
        groups=groups,
        batch_size=training.batch_size,
        micro_batches=micro_batches,
        seed=training.seed,
        dtype=dtype_of(training),
        here=here,
    )


def make_test(task: Task, training: TrainingSettings) -> Slices | None:
    """Return the test data in slices, if there is any.

    Raises:
        ConfigError: it has no samples by index, or the samples in a slice are said twice.
    """
    test = opened(task.test)
    if test is None:
        return None
    if is_stream(test):
        raise ConfigError(
            f"the test data is a stream (it is: {type(test).__name__}), and every evaluation measures the same "
            "samples; give as many of them as you like, as in test=list(itertools.islice(stream, 1000))"
        )
    reading, asked = reading_of(test), training.test_batch_size
    if asked is None:
        return Slices(reading, reading.batch_size or TEST_BATCH, dtype_of(training))
    check_size(reading, asked, "test_batch_size")
    return Slices(reading, asked, dtype_of(training))


def dtype_of(training: TrainingSettings) -> torch.dtype | None:
    """Return the type that floating parameters and data are cast to; None where they keep their own."""
    found: torch.dtype | None = None if training.dtype is None else getattr(torch, training.dtype)
    return found


def precision_of(training: TrainingSettings) -> Precision:
    """Return what forwards compute in."""
    return Precision(None if training.precision is None else torch.bfloat16)


def check_precision(model: nn.Module, training: TrainingSettings) -> None:
    """Refuse a model of other types than a lower precision starts from.

    Args:
        model: in the type of the run.
        training: how it is trained.

    Raises:
        ConfigError: what it trains is not float32.
    """
    if training.precision is None:
        return
    trained = ((name, p.dtype) for name, p in model.named_parameters() if p.requires_grad)
    if other := next(((name, dtype) for name, dtype in trained if dtype != torch.float32), None):
        name, dtype = other
        raise ConfigError(
            f"parameters are float32 where forwards are cast (precision: {training.precision}, parameter: {name}, "
            f"type: {dtype}): autocast leaves float64 as it is, and would cast nothing to the type that there is; take "
            "dtype float32, or leave precision out"
        )


def check_data(task: Task, training: TrainingSettings, batches: Batches | Stream) -> None:
    """Check that samples do not depend on when they are read; those of a test are drawn alike in every run.

    Raises:
        ConfigError: samples differ when they are read again, or nobody can read ahead as asked.
    """
    if training.workers is not None and training.workers < 0:
        raise ConfigError(f"there can be no such number of processes that read ahead (workers: {training.workers})")
    if isinstance(batches, Stream):
        if training.workers:
            raise ConfigError(f"a stream is not read ahead (workers: {training.workers}); leave workers out")
        check_stream(opened(task.data), training.seed, batches.groups)
    else:
        check_repeats(opened(task.data), "training data", training.seed)
    test = opened(task.test)
    if test is not None and not is_stream(test):  # which is told of where slices are made
        check_repeats(test, "test data", 0)


def check_last(model: nn.Module, form: Form, each: Sequence[Example], whole: Collection[int]) -> None:
    """Refuse an incomplete last batch of an epoch that a model does not take, though it takes a whole one.

    Args:
        model: that is trained.
        form: of its arguments.
        each: batches, the first a whole one.
        whole: samples that whole ones have.

    Raises:
        ConfigError: it fails on fewer samples, as normalisation over the batch does on one.
    """
    first = len(each[0].samples())
    last = next((one for one in each if len(one.samples()) not in whole), None)
    if last is None or (problem := _failure(model, form, last)) is None:
        return
    if _failure(model, form, each[0]) is None:  # else whoever tries the first batch says what is wrong
        raise ConfigError(
            f"the model does not take the incomplete last batch of an epoch (samples: {len(last.samples())}, of a "
            f"whole batch: {first}): {problem}; drop it (drop_last=True in the DataLoader, or training.drop_last: "
            "true), or take another batch_size"
        )


def _failure(model: nn.Module, form: Form, example: Example) -> Exception | None:
    try:
        with torch.no_grad(), drawing(torch.device("cpu"), 0, "last batch"):
            call(copied(model).train(), form, tuple(x.clone() for x in example.inputs))
    except Exception as problem:  # the model is the user's: anything can be raised
        return problem
    return None


def check_test(task: Task, model: nn.Module, test: Slices | None) -> None:
    """Measure the first slice of the test data, so that what it does not fit comes before training."""
    if test is None:
        return
    if not len(test):
        raise ConfigError("the test data is empty (samples: 0); leave it out")
    inputs, targets = test[0]
    try:
        with torch.no_grad():
            outputs = spread(call(copied(model).eval(), test.form, inputs))
            with labels.named(outputs[0], targets, partial(test.indices, 0), task.loss):
                task.fresh().loss(*outputs, targets)
    except DataError as problem:
        raise DataError(f"test data: {problem}") from problem
    except Exception as problem:  # model and loss are the user's: anything can be raised
        raise ConfigError(f"the model or the loss does not accept the test data: {problem}") from problem


def check_optimizer(task: Task, model: nn.Module) -> None:
    """Refuse an optimizer that keeps the user's own model to look at, or is hooked with what does.

    Args:
        task: what is trained.
        model: a copy of its model, for whose parameters an optimizer is built.

    Raises:
        ConfigError: it reaches a module, parameter or buffer beside those that it is given.
    """
    kept: list[object] = []
    # The first optimizer of a process loads torch's compiler.  One that cannot be built is told of later.
    with loading(), suppress(Exception), drawing(torch.device("cpu"), 0, "optimizer"):
        optimizer = task.fresh().optimizer_of((n, p) for n, p in model.named_parameters() if p.requires_grad)
        for own in dict.fromkeys((optimizer, *parts_of(optimizer))):
            kept += [value for name, value in vars(own).items() if name not in ("param_groups", "state", "parts")]
            kept.append(type(own).step)
    check_readers(task.model, optimizer=kept)


def whole_model(task: Task, training: TrainingSettings) -> nn.Module:
    """Return a copy of the model in the type and memory order of the run, in memory as a whole.

    Raises:
        ConfigError: see :func:`cast_model`.
    """
    model = cast_model(task, training)
    return model if task.source is None else task.filled(model, model)


def cast_model(task: Task, training: TrainingSettings) -> nn.Module:
    """Return a copy of the model in the type and memory order of the run, without memory where the task's is without.

    Raises:
        ConfigError: it has complex parameters, a copy would not be what it is, or the loss or the scheduler reads it.
    """
    complex_ones = [name for name, p in task.model.named_parameters() if p.is_complex()]
    if complex_ones:
        raise ConfigError(f"complex parameters cannot be trained (parameter: {complex_ones[0]}); hold two real ones")
    check_hooks(task.model)
    check_functions(task.model)
    check_memory(task.model)
    check_readers(task.model, loss=task.loss, scheduler=task.scheduler)
    made = cast(copied(task.model), dtype_of(training))
    return ordered(made, torch.channels_last) if training.channels_last else made
