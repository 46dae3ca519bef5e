"""The agents of a run, composed of their parts.

Does not know: engines, which process an agent lives in.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from stalegrid.agents.agent import Agent
from stalegrid.agents.beginning import Beginning
from stalegrid.agents.build_measuring import Measurers, SavePart
from stalegrid.agents.build_served import build_served, loss_on
from stalegrid.agents.coded import Coded
from stalegrid.agents.evaluation import Evaluation
from stalegrid.agents.keyed import keyed
from stalegrid.agents.listener import Listener
from stalegrid.agents.looks import Diagnosing
from stalegrid.agents.observer import Observer
from stalegrid.agents.pipeline import Parts, PipelineUnit, Role
from stalegrid.agents.sent import Sent
from stalegrid.agents.sharing import Sharing
from stalegrid.agents.tied import Tied
from stalegrid.consensus import Exchange, Hearing, Momentum
from stalegrid.data import Batches, Feed, Readers, Stream, Unread, feed
from stalegrid.objects import renew
from stalegrid.observe import Metrics, Record, Sink, Tally, summarise
from stalegrid.plans import Plan, ServedPlan, Task, Traffic, cast_model, make_batches, make_test, precision_of
from stalegrid.programs import OBSERVER, Shared, Unit
from stalegrid.seeds import drawing
from stalegrid.stages import Ledger, Site, Stage, kind_of_stage, makers, options_of

Diagnoses = Callable[[torch.device], Diagnosing]
"""Makes who diagnoses a run."""


def build_agents(
    task: Task,
    plan: Plan | ServedPlan,
    units: Iterable[Unit],
    device: torch.device,
    sink: Sink,
    readers: Readers | None = None,
    begins: Beginning = Beginning(),  # noqa: B008 - it has no state
    save: SavePart = lambda version, stage, saved, tensors: None,
    diagnoses: Diagnoses | None = None,
) -> dict[Unit, Agent]:
    """Build some agents of a run.

    Args:
        task: what is trained; left as it is.
        plan: of the run.
        units: which agents, in the order they will be stepped.
        device: that they compute on.
        sink: where the observer writes.
        readers: what is asked of processes that read samples ahead for the agents; None if there shall be none.
        begins: what units begin with beside the task's model.
        save: writes what a stage has of the model, where stages measure it; it is dropped if left out.
        diagnoses: makes who diagnoses the run on a device; None where nobody does.

    Returns:
        The agents by unit, in the same order.
    """
    # The model is copied before any unit has its key, and with it generators, such as that of a kept np.random.rand.
    with drawing(device, plan.training.seed, "build"):
        if isinstance(plan, ServedPlan):
            return build_served(task, plan, tuple(units), device, sink, readers)
        return _build_grid(task, plan, tuple(units), device, sink, readers, begins, save, diagnoses)


def _build_grid(
    task: Task,
    plan: Plan,
    units: Sequence[Unit],
    device: torch.device,
    sink: Sink,
    readers: Readers | None,
    begins: Beginning,
    save: SavePart,
    diagnoses: Diagnoses | None,
) -> dict[Unit, Agent]:
    model = cast_model(task, plan.training)
    staged = plan.staged
    measurers = None if staged is None else Measurers(task, plan, staged, model, device, save)
    stages = plan.partition.stages(model)
    micro = plan.schedule.micro_batches
    firsts = [unit for unit in units if unit != OBSERVER and unit.stage == 0]
    travel = plan.program.targets_travel
    # The first stage wants the inputs of a batch, the last one its targets, which the first one may hand on to it.
    lasts = [unit for unit in units if unit != OBSERVER and unit.stage == plan.grid.stages - 1]
    takers = _takers(plan, firsts, firsts if travel else lasts)
    # Who is sent the targets of a batch asks for no more than its numbers, which a sampler alone may know.
    samples: Batches | Stream | Feed | Unread = Unread(plan.numbers)
    if takers or (lasts and plan.numbers is None):
        batches = make_batches(task, plan.training, plan.grid.groups, micro, {unit.group for unit in firsts})
        samples = feed(batches, takers, plan.program.updates * micro, plan.training.workers, readers)
    targets = plan.targets.form if travel else None

    shares = _sharing(task, plan, model, device)

    def build(unit: Unit) -> Agent:
        own = task.fresh()
        loss = loss_on(own, device)
        sent = Sent(Traffic(plan).of, plan.schedule.begins)
        if unit == OBSERVER and staged is not None:
            reported, weights = _weighed(plan)
            bare, tested = cast_model(task, plan.training).to("meta"), task.test is not None
            return Listener(plan.stages, weights, reported, bare, staged.metrics, tested, plan.epochs, sink, sent)
        if unit == OBSERVER:
            plain, test = task.filled(model, model).to(device), make_test(task, plan.training)
            metrics = Metrics(task.metrics, device)
            reported, weights = _weighed(plan)
            told = metrics, plan.epochs, sink, sent, _averaged(plan), precision_of(plan.training), weights, plan.apart
            diagnosing = None if diagnoses is None else diagnoses(device)
            return Observer(plan.owners, plan.stages, reported, plain, loss, test, *told, diagnosing)
        stage = stages[unit.stage]
        pair = measurers.pair(stage, unit.stage) if measurers is not None and measurers.measures(unit) else None
        module = task.filled(stage, model).to(device) if pair is None else pair.training
        begins.fill(unit, module)
        role = Role(unit, plan.grid.stages, plan.weight, plan.program.frozen, plan.sums)
        parts = _parts(own, plan, unit, module, begins)
        if shares is not None:
            parts = dataclasses.replace(parts, measuring=shares())
        if pair is not None:
            assert measurers is not None
            measuring = measurers.measuring(pair, unit.stage, parts.stage.weights)
            parts = dataclasses.replace(parts, measuring=measuring)
        _prepare(parts.stage, plan, unit, device)
        made = PipelineUnit(role, parts, samples, loss, device, targets, plan.partition.shapes)
        return _coded(made, plan, parts.exchange) if plan.codecs else made

    return keyed(build, units, device, plan.training.seed)


def _sharing(task: Task, plan: Plan, model: nn.Module, device: torch.device) -> Callable[[], Sharing] | None:
    """Return what makes a unit's share of evaluations, if units share them; those of a process share a model."""
    if not isinstance(plan.program.watch, Shared) or task.test is None:
        return None
    whole = task.filled(model, model).to(device)

    def made() -> Sharing:
        own = task.fresh()
        test = make_test(own, plan.training)
        assert test is not None
        evaluation = Evaluation(test, loss_on(own, device), Metrics({}, device))
        training = plan.training
        return Sharing(whole, plan.stages, test, evaluation, precision_of(training), _averaged(plan), training.seed)

    return made


def _averaged(plan: Plan) -> Callable[[nn.Module], object] | None:
    """Return what a model is told to that takes a mean over replicas."""
    return renew if len(plan.turns.members) > 1 else None


def _coded(unit: Agent, plan: Plan, exchange: Exchange | None) -> Agent:
    """Return a unit whose messages are coded."""
    return Coded(unit, plan.messages.coding, exchange.arrives if isinstance(exchange, Hearing) else None)


def _weighed(plan: Plan) -> tuple[Callable[[Mapping[Unit, Tensor]], Record], list[float]]:
    """Return what makes a record of reports, and what groups weigh in means."""
    weights = plan.turns.weights
    # Sums are weighed by what they count.
    reported = dict.fromkeys(weights, 1.0) if plan.sums else weights
    return partial(summarise, weights=reported, tells=plan.mixing.tells), list(weights.values())


def _prepare(stage: Stage, plan: Plan, unit: Unit, device: torch.device) -> None:
    """Have a stage that is compiled compiled now, when nobody waits for its messages."""
    for layout in plan.given[unit.stage] if plan.given else ():
        empty = (torch.empty_strided(x.shape, x.stride, dtype=x.dtype, device=device) for x in layout)
        stage.prepare(tuple(x.zero_() for x in empty))


def _takers(plan: Plan, inputs: Iterable[Unit], targets: Iterable[Unit]) -> dict[int, list[int]]:
    """Return, by group, the batches from which on units here ask for inputs, and for targets."""
    program = plan.program
    since = program.saves.since or program.schedule.begins
    found: dict[int, list[int]] = {}
    for unit in inputs:
        found.setdefault(unit.group, []).append(program.issued(unit, since))
    for unit in targets:
        # Targets of batches in flight are asked for again, where they do not travel.
        first, again = Unit(unit.group, 0), since * program.schedule.micro_batches
        found.setdefault(unit.group, []).append(program.issued(first, since) if program.targets_travel else again)
    return found


def _parts(task: Task, plan: Plan, unit: Unit, module: nn.Module, begins: Beginning) -> Parts:
    built = Site.build(unit, plan.program, module, task.optimizer_of, plan.stages[unit.stage].names)
    site = dataclasses.replace(built, updates=plan.updates)  # as planned, wherever the run ends
    made = options_of(site.optimizer)
    scheduler = begins.scheduled(task, unit, site)
    corrections = tuple(make(site) for make in makers(plan.corrections))
    tally = Tally(unit, site.bound)
    hold_all = any(c.needs_forwarded for c in corrections)
    ledger = Ledger(site, tally, measure_gap=plan.gap, hold_all=hold_all)
    kind, form = kind_of_stage(plan.program, unit.stage), None if unit.stage else plan.partition.form
    anew = plan.view.casts_anew(site.schedule, unit.stage)
    precision = dataclasses.replace(precision_of(plan.training), anew=anew)
    first, compiles = unit.stage <= plan.program.frozen, plan.training.compile
    stage = kind(module, site.weights, plan.view(site), first, form, precision, compiles)
    trained = site.weights.trainable()
    momentum = Momentum(site.optimizer, trained) if plan.momentum and trained else None
    # Each unit has its own, as in processes of their own, also where one process has several.
    exchange = copy.deepcopy(plan.mixing).exchange(plan.turns, unit, site.weights, momentum)
    tied = Tied(unit, plan.program.ties, stage, ledger)
    return Parts(stage, site.versions, ledger, tally, corrections, site.optimizer, scheduler, exchange, tied, made)
