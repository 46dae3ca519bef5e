"""The door: trains a model as asked, and returns what came of it.

Does not know: how any part works.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from stalegrid.checkpoints import CheckpointSettings
from stalegrid.codecs import CodecSettings
from stalegrid.config import SHORT, Settings
from stalegrid.consensus import Mixing, MixingSettings, Topology
from stalegrid.data import (
    Collate,
    CropAndFlip,
    Later,
    Reading,
    TrainingSettings,
    check_size,
    given,
    is_stream,
    opened,
)
from stalegrid.engines import EngineSettings
from stalegrid.errors import ConfigError
from stalegrid.methods import Method, MethodSettings, ServerMethod
from stalegrid.objects import LossFunction, own_loss
from stalegrid.observe import Callback, Logger, Measure, OutputSettings
from stalegrid.partition import paths_of
from stalegrid.plans import Task
from stalegrid.programs import GridSettings, ServerSettings
from stalegrid.runs import Result, execute
from stalegrid.sources import Source, built
from stalegrid.stages import Maker, OptimizerFactory, View
from stalegrid.timing import DeviceSettings
from stalegrid.written import groups_of

Data = Dataset[Any] | DataLoader[Any]
"""What is trained or measured on, as it is given."""


def train(
    model: nn.Module | Callable[[], nn.Module],
    data: Data | Callable[[], Data],
    *,
    loss: LossFunction | None = None,
    optimizer: OptimizerFactory,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    test: Data | Callable[[], Data] | None = None,
    augment: CropAndFlip | None = None,
    collate_fn: Collate | None = None,
    metrics: Mapping[str, Measure] | None = None,
    weights: Path | str | None = None,
    method: str | Method | ServerMethod | MethodSettings | None = None,
    groups: int | None = None,
    stages: int | None = None,
    cuts: Sequence[str] | None = None,
    blocks: Sequence[str] | Sequence[nn.Module] | None = None,
    staleness: Sequence[int] | Literal["auto"] | None = None,
    view: str | type[View] | None = None,
    corrections: Sequence[str | Maker] | None = None,
    micro_batches: int | None = None,
    mixing: str | Mixing | type[Mixing] | MixingSettings | None = None,
    topology: Topology | None = None,
    learners: int | None = None,
    batch_size: int | list[int] | None = None,
    test_batch_size: int | None = None,
    workers: int | None = None,
    epochs: float | None = None,
    updates: int | None = None,
    seed: int | None = None,
    dtype: Literal["float32", "float64", "bfloat16"] | None = None,
    precision: Literal["bf16"] | None = None,
    compile: bool | None = None,
    split: str | None = None,
    engine: Literal["processes", "simulator"] | EngineSettings | None = None,
    processes: int | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    costs: Path | str | None = None,
    out: Path | str | None = None,
    evaluation: Literal["auto", "whole", "shared", "pipeline"] | None = None,
    diagnose: int | None = None,
    grid: GridSettings | None = None,
    codec: CodecSettings | None = None,
    servers: int | ServerSettings | None = None,
    training: TrainingSettings | None = None,
    devices: DeviceSettings | None = None,
    output: OutputSettings | None = None,
    checkpoint: int | CheckpointSettings | None = None,
    resume: Path | str | None = None,
    reshape: bool = False,
    start_from: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[str | Logger] = (),
    quiet: bool = False,
) -> Result:
    """Train a model on a grid of groups x stages.

    Under torchrun the processes that run this script share the units; alone, it starts its own.  Options stand in
    groups; those of every day can also be given by themselves.

    Args:
        model: maps a batch of inputs to a tensor, a tuple of tensors or another tree of them; left as it is.  Or a
            function without arguments that makes it: then it is built without memory, and each process makes its own
            stages alone, with initial values that are drawn for each parameter by its name.
        data: map-style data set of (input, target) pairs, or a stream of them, such as an ``IterableDataset``; batches
            of any other kind, such as dictionaries, go whole to the model, ``model(**batch)``, and to the loss in the
            place of the targets.  A ``DataLoader`` in its place gives its data set, batch size, order, collate_fn and
            workers.  Or a function without arguments that returns one, the same whenever it is called: then processes
            of torchrun that do not read it do not keep it.
        loss: (outputs, targets) -> loss averaged over the samples, shape (), or its sum and what that counts, each
            shape (), which are added up over an update before they are divided; None for the one that the model
            computes itself, its output or ``output.loss``.
        optimizer: parameters, or named ones if its argument is called so -> a torch optimizer; called once a unit.
        scheduler: optimizer -> a torch scheduler, stepped once an update.
        test: map-style data set, or a loader of one, to measure the mean model on; or a function that returns one.
        augment: crop and flip of the training images.
        collate_fn: list of items -> batch, a tree of tensors, of both data sets; they are stacked if left out.
        metrics: what is measured on the test data beside loss and accuracy, by name: functions of outputs and targets,
            averaged over the samples, or metrics as those of torchmetrics.
        weights: folder of safetensors, as Hugging Face lays them out, or one file, that a model given as a function
            begins with, in place of initial values.
        method: a published one by name, one of your own, or all that is said of it.
        groups: S; short for ``grid=GridSettings(groups=...)``.
        stages: K; likewise.
        cuts: names of the modules that begin stages 1..K-1; likewise.
        blocks: parts of the model that are called in turn, each kept whole, by path (``layers.*``) or as modules; where
            nothing else can follow its forward; likewise.
        staleness: m_k per stage in batches; short for that of the method.
        view: which weights a late backward sees, by name or as a class; likewise.
        corrections: of gradients and learning rates, by name or as what makes them; likewise.
        micro_batches: M, batches an update is made of; likewise.
        mixing: what groups exchange, by name or as a mixing of your own, or all that is said of it.
        topology: who mixes with whom: a name, an edge list, a graph or a matrix; short for that of the mixing.
        learners: of methods with parameter servers; short for that of the servers.
        batch_size: samples of one group in one update, or one number for each group; short for that of the training.
        test_batch_size: samples that are measured at once; likewise.
        workers: processes that read samples ahead, for each group in each process; likewise.
        epochs: passes over the data; likewise.
        updates: of every unit, instead of epochs; likewise.
        seed: of everything that is drawn; likewise.
        dtype: that floating parameters and data are cast to; likewise.
        precision: bf16 to compute under autocast, with parameters in float32; likewise.
        compile: whether torch's compiler makes code of the stages; likewise.
        split: which samples groups or learners have: even, dirichlet=ALPHA, shards=N; likewise.
        engine: processes or simulator, or all that is said of it.
        processes: how many share the units; short for that of the engine.
        device: likewise.
        costs: table that ``stalegrid profile`` wrote; short for that of the devices.
        out: folder for results; short for ``output=OutputSettings(folder=...)``.
        evaluation: shared to let the units measure the model for the observer, pipeline to let the stages measure it
            and save it in parts; likewise.
        diagnose: updates between two versions of which is measured what the theory speaks of; likewise.
        grid: the units, and where the model is cut.
        codec: how messages are made smaller.
        servers: how many parameter servers, or all that is said of them.
        training: how much.
        devices: what they are like, or shall be taken to be like.
        output: what is told, and where.
        checkpoint: updates from one checkpoint to the next, or all that is said of them; they lie in the folder of the
            run.
        resume: folder of a run that has checkpoints, or of one of them, from which this one goes on, in the folder of
            that run, to the bit; or ``auto``: from the newest in ``out``, or from the beginning.
        reshape: whether it goes on as it is asked for here, with other groups, stages, method or whatever else; then
            not to the bit, and in a folder of its own.
        start_from: file of a model and, beside it, of its optimizer's state, that ``stalegrid export`` or
            :func:`stalegrid.save_exported` wrote; what the run begins with, in place of the model as it is.
        callbacks: called with what is told, in the observer's process, after those of the output; they may ask for an
            early end.
        loggers: where records go too, by name or as objects, beside those of the output.
        quiet: whether to print nothing.

    Returns:
        The trained model and its summary, the same in every process.

    Raises:
        ConfigError: something cannot be run; nothing was started.
        TrainingError: a loss or the model is not finite, a sample cannot be used, or a gradient is too stale.
        EngineError: a process died or stalled.
        Interrupted: a signal asked it to leave, which it did after a checkpoint.
        OutputError: results cannot be written; what was written before stays.
        KeyboardInterrupt: the run was interrupted; at a prompt, as in a notebook, only before anything was measured.
    """
    named = model if isinstance(model, nn.Module) else nn.Module()  # before it is made, it has no modules to be named
    blocks = None if blocks is None else paths_of(named, blocks)
    options = {name: value for name, value in locals().items() if name in OPTIONS and value is not None}
    trained, tested = _set(data, collate_fn), None if test is None else _set(test, collate_fn)
    if (size := _size(trained)) is not None:
        check_size(opened(trained), options.setdefault("batch_size", size), "batch_size")
    own = own_loss if loss is None else loss
    settings = Settings.of(options)
    whole, source = _model(model, settings.training.seed, weights)
    task = Task(whole, trained, own, optimizer, scheduler, tested, augment, metrics or {}, source)
    return execute(
        task,
        settings,
        resume=resume,
        reshape=reshape,
        start_from=start_from,
        callbacks=callbacks,
        loggers=loggers,
        quiet=quiet,
    )


def _set(data: Data | Callable[[], Data], collate_fn: Collate | None) -> Dataset[Any]:
    """Return a data set as a task holds it, or what opens it where a function makes it."""
    if not callable(data) or isinstance(data, Dataset | DataLoader) or hasattr(data, "__getitem__") or is_stream(data):
        return given(data, collate_fn)  # type: ignore[arg-type]
    return Later(lambda: given(data(), collate_fn))


def _size(data: Dataset[Any]) -> int | None:
    """Return the batch size that a loader says."""
    reading = opened(data)
    return reading.batch_size if isinstance(reading, Reading) else None


def _model(
    model: nn.Module | Callable[[], nn.Module], seed: int, weights: Path | str | None
) -> tuple[nn.Module, Source | None]:
    """Return the model, and where its values are if it has none."""
    if not isinstance(model, nn.Module):
        made = built(model, seed, None if weights is None else Path(weights))
        return made.model, made.source
    if weights is not None:
        raise ConfigError(
            f"files are read into a model that is made without memory (weights: {weights}, model: "
            f"{type(model).__name__}); give a function that makes it, model=lambda: ..., or load them into it yourself"
        )
    return model, None


OPTIONS = (*groups_of(Settings), *SHORT)
"""What :func:`train` takes beside the task."""
