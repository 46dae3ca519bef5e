"""The door: trains a model as asked, on the engine asked for, and returns what came of it.

Does not know: how any part works.
"""

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from stalegrid.agents import build_agents
from stalegrid.checkpoints import (
    FOLDER,
    ORIGIN,
    Checkpoint,
    CheckpointSettings,
    check_first,
    check_free,
    check_left,
    check_not_ended,
    check_origin,
    check_same,
    check_settings,
    clear,
    forget_after,
    newest,
    other_bits,
    read_checkpoint,
    taken,
    write_end,
)
from stalegrid.config import SHORT, Settings
from stalegrid.consensus import Mixing, MixingSettings, Topology
from stalegrid.data import Collate, CropAndFlip, Readers, Reading, TrainingSettings, check_size, given, is_stream
from stalegrid.engines import (
    KEPT,
    EngineSettings,
    Job,
    Keeping,
    Measured,
    Surroundings,
    computing,
    ending_in_order,
    homes,
    kept_by,
    launch,
    layout_of_state,
    leaving_in_order,
    noted,
    profile,
    recorded,
    refuse_contexts,
    simulate,
    torchrun,
    use_device,
)
from stalegrid.errors import ConfigError, GroupLost, Interrupted, NonFiniteLoss
from stalegrid.methods import Method, MethodSettings, ServerMethod, find
from stalegrid.objects import LossFunction, own_loss
from stalegrid.observe import (
    BEST,
    MODEL,
    Callback,
    Dated,
    Logger,
    Measure,
    OutputSettings,
    Record,
    Timeline,
    announce,
    cursor_kept,
    find_callbacks,
    find_loggers,
    in_notebook,
    make_sink,
    open_folder,
    own_callbacks,
    own_copies,
    restore,
    tell,
    write_trace,
)
from stalegrid.partition import paths_of
from stalegrid.plans import (
    LostGroup,
    Plan,
    ServedPlan,
    Task,
    cast_model,
    check_measured,
    facts,
    fingerprint,
    headline,
    make_test,
    origin_of,
    plan_of,
)
from stalegrid.programs import DELIVERIES, GridSettings, Saves, ServerSettings, Stoppable
from stalegrid.report import interrupted_whole, read_model, read_summary
from stalegrid.seeds import kept
from stalegrid.stages import Maker, OptimizerFactory, View
from stalegrid.timing import NANOSECONDS, Clock, DeviceSettings
from stalegrid.transfer import ANEW, Position, Start, check_start, facts_of, sentence, start_of
from stalegrid.version import __version__
from stalegrid.written import exists, groups_of


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        model: a copy of the user's model with the mean parameters and buffers over groups, in evaluation mode.
        summary: the content of ``summary.json``.
        folder: where the results are; None if no folder was asked for.
        best: a copy with the parameters and buffers of the best evaluation; None where ``output.best`` says nothing, or
            what it says was never a number.
    """

    model: nn.Module
    summary: Record
    folder: Path | None
    best: nn.Module | None = None

    @property
    def test_accuracy(self) -> float | None:
        """Share of test samples whose largest output is the target, of the last version."""
        accuracy: float | None = self.summary["test_accuracy"]
        return accuracy


def train(
    model: nn.Module,
    data: Dataset[Any] | DataLoader[Any],
    *,
    loss: LossFunction | None = None,
    optimizer: OptimizerFactory,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    test: Dataset[Any] | DataLoader[Any] | None = None,
    augment: CropAndFlip | None = None,
    collate_fn: Collate | None = None,
    metrics: Mapping[str, Measure] | None = None,
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
    batch_size: int | None = None,
    test_batch_size: int | None = None,
    workers: int | None = None,
    epochs: float | None = None,
    updates: int | None = None,
    seed: int | None = None,
    dtype: Literal["float32", "float64", "bfloat16"] | None = None,
    engine: Literal["processes", "simulator"] | EngineSettings | None = None,
    processes: int | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    costs: Path | str | None = None,
    out: Path | str | None = None,
    grid: GridSettings | None = None,
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
        model: maps a batch of inputs to a tensor, a tuple of tensors or another tree of them; left as it is.
        data: map-style data set of (input, target) pairs, or a stream of them, such as an ``IterableDataset``; batches
            of any other kind, such as dictionaries, go whole to the model, ``model(**batch)``, and to the loss in the
            place of the targets.  A ``DataLoader`` in its place gives its data set, batch size, order, collate_fn and
            workers.
        loss: (outputs, targets) -> loss averaged over the samples, shape (), or its sum and what that counts, each
            shape (), which are added up over an update before they are divided; None for the one that the model
            computes itself, its output or ``output.loss``.
        optimizer: parameters, or named ones if its argument is called so -> a torch optimizer; called once a unit.
        scheduler: optimizer -> a torch scheduler, stepped once an update.
        test: map-style data set, or a loader of one, to measure the mean model on.
        augment: crop and flip of the training images.
        collate_fn: list of items -> batch, a tree of tensors, of both data sets; they are stacked if left out.
        metrics: what is measured on the test data beside loss and accuracy, by name: functions of outputs and targets,
            averaged over the samples, or metrics as those of torchmetrics.
        method: a published one by name, one of your own, or all that is said of it.
        groups: S; short for ``grid=GridSettings(groups=...)``.
        stages: K; likewise.
        cuts: names of the modules that begin stages 1..K-1; likewise.
        blocks: parts of the model that are called in turn, each kept whole, by path (``layers.*``) or as modules; where
            nothing else can follow its forward; likewise.
        staleness: m_k per stage in batches; short for that of the method.
        view: which weights a late backward sees, by name or as a class; likewise.
        corrections: of gradients and learning rates, by name or as what makes them; likewise.
        micro_batches: M, batches an update averages over; likewise.
        mixing: what groups exchange, by name or as a mixing of your own, or all that is said of it.
        topology: who mixes with whom: a name, an edge list, a graph or a matrix; short for that of the mixing.
        learners: of methods with parameter servers; short for that of the servers.
        batch_size: samples of one group in one update; short for that of the training.
        test_batch_size: samples that are measured at once; likewise.
        workers: processes that read samples ahead, for each group in each process; likewise.
        epochs: passes over the data; likewise.
        updates: of every unit, instead of epochs; likewise.
        seed: of everything that is drawn; likewise.
        dtype: that floating parameters and data are cast to; likewise.
        engine: processes or simulator, or all that is said of it.
        processes: how many share the units; short for that of the engine.
        device: likewise.
        costs: table that ``stalegrid profile`` wrote; short for that of the devices.
        out: folder for results; short for ``output=OutputSettings(folder=...)``.
        grid: the units, and where the model is cut.
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
    blocks = None if blocks is None else paths_of(model, blocks)
    options = {name: value for name, value in locals().items() if name in OPTIONS and value is not None}
    trained, tested = given(data, collate_fn), None if test is None else given(test, collate_fn)
    if isinstance(trained, Reading) and trained.batch_size is not None:
        check_size(trained, options.setdefault("batch_size", trained.batch_size), "batch_size")
    own = own_loss if loss is None else loss
    task = Task(model, trained, own, optimizer, scheduler, tested, augment, metrics or {})
    return execute(
        task,
        Settings.of(options),
        resume=resume,
        reshape=reshape,
        start_from=start_from,
        callbacks=callbacks,
        loggers=loggers,
        quiet=quiet,
    )


OPTIONS = (*groups_of(Settings), *SHORT)
"""What :func:`train` takes beside the task."""


def execute(
    task: Task,
    settings: Settings,
    *,
    resume: Path | str | None = None,
    reshape: bool = False,
    start_from: Path | str | None = None,
    losses: Sequence[LostGroup] | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[str | Logger] = (),
    quiet: bool = False,
    keep_units: bool = False,
) -> Result:
    """Train a task; see :func:`train`.

    Args:
        task: what is trained.
        settings: how; where they also say what, they are written to the folder whole.
        resume: what the run goes on from.
        reshape: whether it goes on in another shape.
        start_from: what it begins with.
        losses: groups that it goes on without; those that it was without before, if left out.
        callbacks: called with what is told.
        loggers: where records go too.
        quiet: whether to print nothing.
        keep_units: whether to keep the parameters of every unit in the folder too.
    """
    refuse_contexts()
    start = start_of(settings.output.folder, resume if reshape else None, start_from)
    settings, source = goes_on(settings, None if reshape else resume)
    check_start(source, start)
    given, task = task, start.into(task, settings.training)
    found = find_loggers(settings.output.loggers, loggers, settings.output.folder)
    called = own_callbacks([*find_callbacks(settings.output.callbacks), *callbacks])
    if losses is None:
        losses = [] if source is None else list(map(LostGroup.of, source.manifest.get("losses", ())))
    anew = source is None and str(resume) == AUTO
    kept, lost = own_copies(found, "logger"), tuple(losses)
    asked = _Asked(
        task, settings, called, kept, quiet, keep_units, source, lost, anew, start, task if start_from else given
    )
    with ending_in_order():
        if settings.engine.kind == "processes" and torchrun.active():
            return _on_torchrun(asked)
        return _on_this_host(asked)


def goes_on(settings: Settings, resume: Path | str | None) -> tuple[Settings, Checkpoint | None]:
    """Return what a run goes on from, and settings of its folder.

    Raises:
        ConfigError: there is nothing to go on from, another folder is named, or the run has come to its end.
    """
    if resume is None:
        return settings, None
    out = settings.output.folder
    if str(resume) == AUTO:
        return settings, _newest(out, settings.checkpoint)
    source = read_checkpoint(Path(resume))
    run = source.run
    if out is not None and out.resolve() != run.resolve():
        raise ConfigError(f"a run goes on in its own folder (resume: {run}, out: {out}); leave out the other one")
    if Path(resume).resolve() != source.folder.resolve():
        check_not_ended(run)
    return replace(settings, output=replace(settings.output, folder=run)), source


AUTO = "auto"
"""What to resume from: the newest checkpoint in the folder of the run, if there is one."""


def _newest(out: Path | None, checkpoint: CheckpointSettings) -> Checkpoint | None:
    """Return the newest whole checkpoint in the folder of a run, if there is one."""
    if out is None:
        raise ConfigError("resume auto looks for checkpoints in the folder of the run; name that (out)")
    if not checkpoint.wanted:
        raise ConfigError("resume auto is for runs that write checkpoints; say when (checkpoint)")
    check_not_ended(out)
    return newest(out, partial(tell, name="stderr"))


def left(folder: Path, *, named: bool) -> Interrupted:
    """Return the error of a run that was asked to leave.

    Args:
        folder: of the run.
        named: whether its settings also say what is trained, so that the command line can go on with it.
    """
    source = newest(folder)
    if source is None:
        return Interrupted(
            f"the run was asked to leave, and has, but no checkpoint of it could be written (folder: {folder})"
        )
    again = f"stalegrid resume {folder}" if named else f"the same script, with train(..., resume={str(folder)!r})"
    return Interrupted(
        f"the run was asked to leave, and has (checkpoint: {source.folder}); it goes on to the bit with: {again}"
    )


@dataclass(frozen=True)
class _Asked:
    """A run as it was asked for."""

    task: Task
    settings: Settings
    callbacks: Sequence[Callback]
    loggers: Sequence[Logger]
    quiet: bool
    keep_units: bool
    source: Checkpoint | None = None
    losses: tuple[LostGroup, ...] = ()
    anew: bool = False
    """Whether it begins anew where one like it came to no checkpoint."""

    @property
    def kept(self) -> bool:
        """Whether there are checkpoints."""
        return self.settings.checkpoint.wanted or self.source is not None

    @property
    def named(self) -> bool:
        """Whether the settings also say what is trained."""
        return "model" in self.settings.plain()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Open the folder of the run, in which no other one writes checkpoints meanwhile.

        Raises:
            ConfigError: one does, or the folder cannot be made.
        """
        out = self.settings.output.folder
        again = self.source is not None or (self.anew and out is not None and exists(out))
        with open_folder(out, again=again) as folder, ExitStack() as stack:
            if self.kept:
                stack.enter_context(taken(folder / FOLDER))
            if self.source is not None:
                self.source.check()  # a run that went on until now may have removed it
                forget_after(folder / FOLDER, self.source.version)
            elif again:
                clear(folder)
            yield folder

    def end(self, folder: Path, summary: Record) -> None:
        """Note that the run has come to its end."""
        if self.kept:
            write_end(folder / FOLDER, summary["version"])

    start: Start = ANEW
    given: Task | None = None
    """What the user names again where the run is resumed."""

    def watched(self, plan: Plan | ServedPlan) -> Plan | ServedPlan:
        """Return the plan, for a run that may end early where a callback may ask for it.

        Raises:
            ConfigError: a callback lacks something that it needs.
        """
        for callback in self.callbacks:
            if callback.writes and self.settings.output.folder is None:
                name = type(callback).__name__
                raise ConfigError(f"{name} writes into the folder of the run, and there is none; name one (out)")
            if callback.by is not None:
                training = self.settings.training
                model, test = cast_model(self.task, training), make_test(self.task, training)
                check_measured(self.task, model, test, callback.by)
        return self._kept(plan, stops=any(callback.stops for callback in self.callbacks))

    def _kept(self, plan: Plan | ServedPlan, *, stops: bool) -> Plan | ServedPlan:
        """Return the plan, for a run that is saved where that is asked for, and goes on where it was saved."""
        checkpoint, source = self.settings.checkpoint, self.source
        plan = self._begun(plan)
        if self.kept:
            if self.settings.output.folder is None:
                raise ConfigError("checkpoints lie in the folder of the run, and there is none; name one (out)")
            if isinstance(plan, ServedPlan):
                plan = self._served(plan)
            plan = plan.saved(Saves(checkpoint.every, 0 if source is None else source.version))
        elif self.settings.engine.on_loss == "continue":
            raise ConfigError(
                "a run goes on without a lost group from its last checkpoint (engine.on_loss: continue, checkpoint: "
                "none); say how often there is one (checkpoint)"
            )
        if self.settings.engine.on_loss == "continue" and isinstance(plan, ServedPlan):
            raise ConfigError(
                f"a run with servers goes on without lost learners by itself (engine.on_loss: continue, method: "
                f"{plan.method.name}); leave it out"
            )
        plan = plan.without(self.losses)
        if stops or (checkpoint.wanted and isinstance(plan, Plan)):
            plan = plan.stoppable(often=checkpoint.wanted)
        return plan if source is None else plan.ended_at(source.end)

    def _served(self, plan: ServedPlan) -> ServedPlan:
        """Return the plan of a run with servers, which goes on in the order of deliveries that there was.

        Raises:
            ConfigError: it would not, or is to be saved when nobody knows beforehand.
        """
        if self.settings.checkpoint.minutes is not None:
            raise ConfigError(
                f"a run with servers is saved at versions that are known beforehand (checkpoint.minutes: "
                f"{self.settings.checkpoint.minutes}, method: {plan.method.name}); take checkpoint.every"
            )
        if self.source is None:
            return plan
        live = self.source.manifest["settings"]["engine"]["kind"] == "processes"
        return plan.after(self.source.run / DELIVERIES, self.source.version, live=live)

    def _begun(self, plan: Plan | ServedPlan) -> Plan | ServedPlan:
        """Return the plan of a run that begins later than with the first batch, or began so."""
        if self.source is None:
            placed = self.start.placed(plan)
            self.start.check(self.task, placed)
            return placed
        begins = self.source.manifest["begins"]
        return plan.begun(begins) if begins and isinstance(plan, Plan) else plan


def _on_this_host(asked: _Asked) -> Result:
    task, settings = asked.task, asked.settings
    get_ready(settings)
    plan = asked.watched(prepare(task, settings, asked.source, anew=asked.anew))
    with asked.folder() as folder, cursor_kept():
        job = _job(asked, plan, folder)
        _announce(asked, plan, folder)
        try:
            with _leaving(job) as leaving:
                ended = _simulate(job, leaving) if settings.engine.virtual else _launch(asked, job, leaving)
            if not ended:
                raise left(folder, named=asked.named)
            asked.end(folder, read_summary(folder))
        except KeyboardInterrupt:
            # In a notebook, or at another prompt, somebody stays who can use what there is.
            if not hasattr(sys, "ps1") or not interrupted_whole(folder):
                raise
            warnings.warn("interrupted: the result is the model as it was measured last", stacklevel=4)
        summary = read_summary(folder)
        models = _models(task, settings, summary)
        for which, model in models.items():
            restore(model, *read_model(folder, which))
        return _result(models, task, settings, summary)


def _launch(asked: _Asked, job: Job, leaving: Callable[[], bool]) -> bool:
    """Run a job in processes, and go on without groups that are lost if that is asked for."""
    while True:
        try:
            return launch(job, _processes(job.plan, asked.settings), leaving)
        except GroupLost as problem:
            source = newest(job.folder)
            if source is None:
                raise
            why = str(problem).splitlines()[0]
            lost = [LostGroup(group, source.version, why) for group in problem.groups]
            named = ", ".join(map(str, problem.groups))
            tell(
                f"group {named} is gone, and the run goes on without it from version {source.version}: {why}", "stderr"
            )
            asked = replace(asked, source=source, losses=(*asked.losses, *lost))
            forget_after(job.folder / FOLDER, source.version)
            job = _job(asked, asked.watched(_planned_again(asked.task, asked.settings, source)), job.folder)


def get_ready(settings: Settings) -> None:
    """Let libraries load for worker processes that will be needed, beside whatever is done until then."""
    if settings.engine.kind == "processes" and not torchrun.active():
        KEPT.begin()


@contextmanager
def _leaving(job: Job) -> Iterator[Callable[[], bool]]:
    """Let signals ask a run to leave that can be asked, and say of one that they end how it goes on."""
    if job.keeping is None:
        yield lambda: False
        return
    if not isinstance(job.plan.program, Stoppable):
        try:
            yield lambda: False
        except (KeyboardInterrupt, SystemExit):
            # Servers and learners are saved as planned alone.
            if (source := newest(job.folder)) is not None:
                again = f"stalegrid resume {job.folder}, or train(..., resume={str(job.folder)!r})"
                tell(f"the run has ended at once; it goes on from version {source.version} with: {again}", "stderr")
            raise
        return
    with leaving_in_order(partial(tell, name="stderr")) as leaving:
        yield leaving


def prepare(
    task: Task, settings: Settings, source: Checkpoint | None = None, *, anew: bool = False
) -> Plan | ServedPlan:
    """Settle and check everything, the machine included, before anything starts.

    Args:
        task: what is trained.
        settings: how.
        source: what the run goes on from.
        anew: whether it may begin in the folder of one like it that came to no checkpoint.

    Raises:
        ConfigError: something cannot be run.
    """
    engine, folder = settings.engine, settings.output.folder
    if not 0 < engine.deadline < math.inf:
        raise ConfigError(f"the deadline must be a positive number of seconds (deadline: {engine.deadline})")
    _check_folder(folder, source, anew=anew)
    use_device(engine.device, 0)
    plan = _planned(task, settings) if source is None else _planned_again(task, settings, source)
    if anew and folder is not None and exists(folder):
        check_same(folder, plan.settled(settings).plain(), _measured(settings))
    if not engine.virtual and not torchrun.active():
        homes(plan.program, _processes(plan, settings) + 1, spare=True)
    return plan


def _check_folder(folder: Path | None, source: Checkpoint | None, *, anew: bool) -> None:
    """Refuse a folder that is there, but for a run that goes on or begins anew in it.

    Raises:
        ConfigError: it cannot be taken.
    """
    if folder is None or not exists(folder):
        return
    if source is not None:
        check_free(folder / FOLDER)
    elif anew:
        check_left(folder)
    else:
        raise ConfigError(f"the output folder exists (out: {folder}); name a new one or remove it")


def _measured(settings: Settings) -> list[str]:
    """Return what was not asked for, but is measured, and may be otherwise another time."""
    cuts = ["grid.cuts"] if settings.grid.cuts is None else []
    return cuts + (["method.staleness"] if settings.method.staleness == "auto" else [])


def _planned(task: Task, settings: Settings) -> Plan | ServedPlan:
    unknown = settings.method.staleness == "auto" and settings.devices.costs is None
    with computing(settings.engine.threads):
        # Not for learners, whose plan refuses a staleness: to measure first would take long.
        measured = unknown and isinstance(find(settings.method.name), Method)
        table = profile(task, settings, settings.engine) if measured else None
        return plan_of(task, settings, table, virtual=settings.engine.virtual)


def _planned_again(task: Task, settings: Settings, source: Checkpoint) -> Plan | ServedPlan:
    """Return the plan of a run that goes on, with what it measured at its beginning."""
    check_first(source, settings.plain())
    check_origin(source, origin_of(task))
    for line in other_bits(source, _bits(settings)):
        tell(line, "stderr")
    measured = Measured.read(source.manifest["measured"].encode())
    with computing(settings.engine.threads):
        plan = plan_of(task, measured.into(settings), measured.table, virtual=settings.engine.virtual)
    check_settings(source, plan.settled(settings).plain())
    return plan


def _processes(plan: Plan | ServedPlan, settings: Settings) -> int:
    return len(plan.program.units) if settings.engine.processes is None else settings.engine.processes


def _job(asked: _Asked, plan: Plan | ServedPlan, folder: Path) -> Job:
    settings = asked.settings
    limit = 2 * plan.splits if isinstance(plan, ServedPlan) else None
    written = plan.settled(settings).plain()
    told = settings.output, asked.callbacks, asked.loggers, written, asked.quiet, in_notebook(), asked.keep_units
    again = asked.source is not None
    begun = _begun_with(asked, plan)
    told_of_plan = {**facts(plan), **({"start": begun} if begun else {})}
    sink = partial(make_sink, folder, told_of_plan, limit, plan.program.updates, *told, again)
    keeping = _keeping(asked, plan, folder, written)
    trace = settings.output.trace
    start = asked.start if asked.source is None else ANEW
    begins = partial(start.opened, asked.task, plan)
    return Job(asked.task, plan, settings.engine, settings.devices.emulate, trace, sink, folder, keeping, begins)


def _keeping(asked: _Asked, plan: Plan | ServedPlan, folder: Path, written: Record) -> Keeping | None:
    settings, source = asked.settings.checkpoint, asked.source
    if not settings.wanted and source is None:
        return None
    virtual = asked.settings.engine.virtual and plan.time_model is not None
    if virtual and source is not None and not source.manifest.get("virtual"):
        warnings.warn(
            f"virtual time begins at 0 (checkpoint: {source.folder}): the run has had none before", stacklevel=4
        )
    if source is not None and is_stream(asked.task.data):
        warnings.warn(
            f"the stream is gone through once more, from its beginning to version {source.version}, without training",
            stacklevel=4,
        )
    told = {
        "virtual": virtual,
        **_bits(asked.settings),
        "settings": written,
        ORIGIN: origin_of(asked.given or asked.task),
        "measured": Measured.of(plan).text().decode(),
        **_reads(asked, plan),
        "losses": [loss.plain() for loss in asked.losses],
    }
    return Keeping(folder / FOLDER, settings, told, source)


def _begun_with(asked: _Asked, plan: Plan | ServedPlan) -> Record:
    """Return what is said of the beginning of a run that goes on from something in another shape."""
    found: Record = asked.start.told(plan) if asked.source is None else asked.source.manifest["start"]
    return found


def _reads(asked: _Asked, plan: Plan | ServedPlan) -> Record:
    """Return what a manifest says for runs that go on in another shape."""
    start = _begun_with(asked, plan)
    if not isinstance(plan, Plan):
        return {"begins": 0, "start": start}
    return {
        "begins": plan.schedule.begins,
        "start": start,
        "position": Position.of(plan).plain(),
        "model": facts_of(cast_model(asked.task, plan.training), plan.stages),
    }


def _bits(settings: Settings) -> Record:
    """Return that on which the last bits of numbers may depend."""
    device = use_device(settings.engine.device, 0).type
    versions = {"stalegrid": __version__, "torch": torch.__version__}
    return {**versions, "device": device, "threads": settings.engine.threads}


def _announce(asked: _Asked, plan: Plan | ServedPlan, folder: Path) -> None:
    settings = asked.settings
    line = headline(plan, settings.engine.kind, settings.engine.threads)
    announce(line, plan.settled(settings).plain(), folder, asked.quiet)
    if asked.source is None and not asked.quiet and (begun := asked.start.told(plan)):
        tell(sentence(begun))


def _on_torchrun(asked: _Asked) -> Result:
    task, settings = asked.task, asked.settings
    with torchrun.joined(settings.engine.deadline) as peers:
        peers.check_same("switches of torch", lambda: Surroundings.here().text())
        peers.check_same("models", lambda: layout_of_state(task.model))
        peers.check_same("data", lambda: fingerprint(task))
        peers.check_same("checkpoints", lambda: "" if asked.source is None else asked.source.folder.name)
        # Every process has built the model itself; without a seed of the user's they differ.
        with peers.one_state(task.model):
            plan = peers.agree(
                _same(settings),
                lambda: asked.watched(prepare(task, settings, asked.source, anew=asked.anew)),
                partial(_again, asked),
            )
            with peers.shared(asked.folder) as folder:
                if peers.rank == 0:
                    _announce(asked, plan, folder)
                job = _job(asked, plan, folder)
                with _leaving(job) as leaving:
                    summary = peers.run(job, lambda: read_summary(folder), leaving)
                if plan.program.left is not None:
                    raise left(folder, named=asked.named)
                if peers.rank == 0:
                    asked.end(folder, summary)
                models = _models(task, settings, summary)
                for which, model in models.items():
                    if peers.rank == 0:
                        restore(model, *read_model(folder, which))
                    peers.take_state(model)
        if settings.output.folder is not None:
            settings = replace(settings, output=replace(settings.output, folder=folder))  # the first process's own
        return _result(models, task, settings, summary)


def _same(settings: Settings) -> str:
    """Return what all processes must be asked for alike: where the first one writes, and reads costs, is its own."""
    return repr(replace(settings, devices=replace(settings.devices, costs=None)).plain())


def _again(asked: _Asked, measured: Measured) -> Plan | ServedPlan:
    with computing(asked.settings.engine.threads):
        return asked.watched(plan_of(asked.task, measured.into(asked.settings), measured.table))


def _simulate(job: Job, leaving: Callable[[], bool]) -> bool:
    """Run all agents here, in virtual time where costs are known; return whether the run came to its end."""
    device = use_device(job.engine.device, 0)
    program, model, traced = job.plan.program, job.plan.time_model, job.trace
    timeline = Timeline(virtual=model is not None)
    noting = partial(noted, folder=job.folder, again=program.saves.since > 0)
    with computing(job.engine.threads), kept(device), closing(job.sink()) as sink, ExitStack() as stack:
        readers = Readers(stack, job.engine.deadline)
        if model is None:
            agents = build_agents(job.task, job.plan, program.agents, device, sink, readers, job.begins())
            with noting(agents) as agents, kept_by(job, agents, device, leaving) as agents:
                simulate(program, recorded(agents, timeline, device) if traced else agents)
            timeline = Timeline.joined([timeline])
        else:
            clock = Clock(program, model, timeline if traced else None)
            dated = Dated(sink, lambda: clock.now / (1000 * NANOSECONDS))
            agents = build_agents(job.task, job.plan, program.agents, device, dated, readers, job.begins())
            with noting(agents) as agents, kept_by(job, agents, device, leaving, clock) as agents:
                simulate(program, agents, before=clock.date)
        if program.left is None:
            sink.finish()
    if traced:
        write_trace(job.traced, timeline)
    return program.left is None


def _models(task: Task, settings: Settings, summary: Record) -> dict[str, nn.Module]:
    """Return a model for each that a run has kept, by the names of their files."""
    kept = [MODEL, *([BEST] if summary.get("best") else [])]
    return {which: cast_model(task, settings.training) for which in kept}


def _result(models: Mapping[str, nn.Module], task: Task, settings: Settings, summary: Record) -> Result:
    """Return what came of a run, which has written it already.

    Raises:
        NonFiniteLoss: the model at the end has no finite test loss.
    """
    if task.test is not None and summary["test_loss"] is None:
        raise NonFiniteLoss(
            f"the test loss at the end is infinite or no number (version: {summary['version']}); lower the learning "
            "rate or the staleness, or clip the gradients"
        )
    for model in models.values():
        model.eval()
    return Result(models[MODEL], summary, settings.output.folder, models.get(BEST))
