"""Which plain loop says what a run computes, and how it is called.

Does not know: engines, agents, how any loop works.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stalegrid.consensus import Averaging, Choco, Mixing, Outer, has_name
from stalegrid.consensus import NoLoCo as NoLoCoMixing
from stalegrid.data import Batches, Stream
from stalegrid.methods import METHODS
from stalegrid.objects import mapped
from stalegrid.plans import Plan, ServedPlan, Task, make_batches, precision_of, server_optimizer, whole_model
from stalegrid.programs import InStep, Ordered, Recorded, Unit
from stalegrid.seeds import drawing, generator
from stalegrid.stages import Current, Stashed, find_view, name_of_view
from stalegrid.studies.reference.adl import adl
from stalegrid.studies.reference.async_nesterov import async_nesterov
from stalegrid.studies.reference.ddg import ddg
from stalegrid.studies.reference.dsp import dsp
from stalegrid.studies.reference.error_feedback import fed_back
from stalegrid.studies.reference.exact_diffusion import ExactDiffusion
from stalegrid.studies.reference.fdg import fdg
from stalegrid.studies.reference.features_replay import features_replay
from stalegrid.studies.reference.gradient_tracking import GradientTracking
from stalegrid.studies.reference.grid import grid
from stalegrid.studies.reference.hardsync import hardsync
from stalegrid.studies.reference.outer import DiLoCo, NoLoCo
from stalegrid.studies.reference.paci import paci
from stalegrid.studies.reference.pairs import Met, pairs
from stalegrid.studies.reference.passes import Named
from stalegrid.studies.reference.pipedream import pipedream
from stalegrid.studies.reference.pipedream_2bw import pipedream_2bw
from stalegrid.studies.reference.pipemare import pipemare
from stalegrid.studies.reference.pipeoptim import pipeoptim
from stalegrid.studies.reference.push_sum import PushSum
from stalegrid.studies.reference.softsync import softsync
from stalegrid.studies.reference.spectrain import spectrain
from stalegrid.studies.reference.stability import steadied
from stalegrid.studies.reference.synchronous import synchronous
from stalegrid.studies.whole import lowered, wrapped

P = TypeVar("P", bound=Plan | ServedPlan)

Trained = tuple[list[list[nn.Module]], list[list[float]]]
"""Stage modules [s][k] and losses [s][n]."""

OWN: dict[str, Callable[..., tuple[list[nn.Module], list[float]]]] = {
    "dsp": dsp,
    "fdg": fdg,
    "fdg-forward-first": fdg,
    "adl": adl,
    "ddg": ddg,
    "features-replay": features_replay,
    "pipedream": pipedream,
    "pipedream-2bw": pipedream_2bw,
    "pipemare": pipemare,
    "spectrain": spectrain,
    "pipeoptim": pipeoptim,
    "async-nesterov": async_nesterov,
    "paci": paci,
}
"""The loops of one group, by method."""

RULES: dict[str, type[ExactDiffusion] | type[GradientTracking] | type[PushSum]] = {
    "push-sum": PushSum,
    "exact-diffusion": ExactDiffusion,
    "gradient-tracking": GradientTracking,
}
"""How the loop of several groups mixes where it does not average, by mixing."""


def plain_loop(task: Task, plan: Plan | ServedPlan, device: torch.device) -> Callable[[], Trained] | None:
    """Return the loop that computes the same as a run, ready to be called; None where there is none.

    Args:
        task: what is trained.
        plan: how.
        device: that the loop computes on.
    """
    if plan.sums or not all(isinstance(correction, str) for correction in plan.corrections):
        return None
    task = task.fresh()
    plan, around = _apart(plan)
    if isinstance(plan, ServedPlan):
        return _served(task, plan, device, around)
    if plan.training.compile:
        return None  # these loops have no compiled stages, which round otherwise
    if precision_of(plan.training).lower is not None and _casts_anew(plan):
        return None  # these loops write weights under a graph, which has casts of those that were there
    common = _common(task, plan, device, around)
    if plan.codecs:
        return None if plan.schedule.flush or plan.program.ties.each else _grid(plan, common)
    if plan.schedule.flush:
        return _synchronous(plan, common)
    if plan.program.ties.each:
        return None  # these loops train copies of the stages, each with a copy of what they share
    own = _own_arguments(plan)
    if own is not None:
        return partial(_alone, OWN[plan.method.name], {**_of_one_group(common), **own})
    return _grid(plan, common)


RATES = ("inverse-staleness", "exponential-staleness", "pipemare-rate", "stability-rate")
"""Corrections that scale the rate."""

Around = Callable[[Callable[[Named], Optimizer]], Callable[[Named], Optimizer]]
"""What makes of a factory of optimizers one of optimizers around them."""


def _apart(plan: P) -> tuple[P, Around]:
    """Take what a loop has in its optimizer out of the corrections of a plan; that around a step in their order."""
    found = [(correction, _around(str(correction), plan)) for correction in plan.corrections]
    if sum(str(correction).partition("=")[0] in RATES for correction in plan.corrections) > 1:
        return plan, lambda optimizer: optimizer  # factors of a rate round in the order in which they are multiplied
    # Rates first: every feedback is of the whole update, wherever in the order its rate is named.
    rules = sorted((own for _, own in found if own is not None), key=lambda own: own.func is not steadied)

    def around(optimizer: Callable[[Named], Optimizer]) -> Callable[[Named], Optimizer]:
        for rule in rules:
            optimizer = rule(optimizer)
        return optimizer

    return replace(plan, corrections=tuple(correction for correction, own in found if own is None)), around


def _around(correction: str, plan: Plan | ServedPlan) -> "partial[Callable[[Named], Optimizer]] | None":
    name, _, c = correction.partition("=")
    if name == "error-feedback":
        return partial(fed_back, c=float(c or 1.0))
    if name == "error-feedback-by-staleness":
        return partial(fed_back, c=float(c or 1.0), m=partial(_staleness, plan))
    if name == "stability-rate" and isinstance(plan, Plan):
        return partial(steadied, m=partial(_staleness, plan))
    return None


def _staleness(plan: Plan | ServedPlan, named: Named) -> int:
    """Return the largest staleness of the stage that has these parameters."""
    assert isinstance(plan, Plan)
    names = {name for name, _ in named}
    return max(
        (bound for layout, bound in zip(plan.stages, plan.bounds, strict=True) if layout.names & names), default=0
    )


def _casts_anew(plan: Plan) -> bool:
    return any(plan.view.casts_anew(plan.schedule, k) for k in range(plan.grid.stages))


def _served(task: Task, plan: ServedPlan, device: torch.device, around: Around) -> Callable[[], Trained] | None:
    """Return the loop of learners and a server, where the order of deliveries is known."""
    rules, program, precision = plan.rules, plan.program, precision_of(plan.training)
    samples = make_batches(task, plan.training, plan.grid.groups, 1)
    common: dict[str, Any] = {
        "model": wrapped([whole_model(task, plan.training).to(device)], samples.form, precision)[0],
        "learners": rules.learners,
        "N": program.updates,
        **_reading(samples, device),
        "loss": lowered(task.loss, precision),
        "optimizer": around(server_optimizer(task, plan.momentum)),
        "scheduler": task.scheduler,
        "drawing": lambda s, k, b: drawing(device, plan.training.seed, "forward", s, k, b),
        "momentum": plan.momentum,
    }
    rule = _rule([str(correction) for correction in plan.corrections])
    if plan.method.synchronous:
        return partial(_server, hardsync, common) if rule == "constant" else None
    if (
        rule is None
        or rules.bound is not None
        or not isinstance(program, Ordered)
        or any(d.gone for d in program.order)
    ):
        return None
    order = [delivery.learner for delivery in program.order]
    return partial(_server, softsync, {**common, "order": order, "c": rules.gather, "rule": rule})


def _rule(corrections: Sequence[str]) -> str | tuple[str, float] | None:
    """Return the rule of the loop that is all the corrections; None where there is no such."""
    if not corrections:
        return "constant"
    name, _, number = corrections[0].partition("=")
    found: dict[str, str | tuple[str, float]] = {
        "none": "constant",
        "inverse-staleness": "inverse",
        "exponential-staleness": ("exponential", float(number or 0.1)),
        "dc-asgd": ("dc", float(number or 0.04)),
    }
    return None if len(corrections) > 1 else found.get(name)


def _server(loop: Callable[..., tuple[nn.Module, list[float]]], arguments: dict[str, Any]) -> Trained:
    model, losses = loop(**arguments)
    return [[model]], [losses]


def _common(task: Task, plan: Plan, device: torch.device, around: Around) -> dict[str, Any]:
    samples = make_batches(task, plan.training, plan.grid.groups, plan.schedule.micro_batches)
    stages = plan.partition.stages(whole_model(task, plan.training).to(device))
    precision = precision_of(plan.training)
    return {
        "stages": wrapped(stages, plan.partition.form, precision),
        "N": plan.program.updates,
        **_reading(samples, device),
        "loss": lowered(task.loss, precision),
        "optimizer": around(task.optimizer_of),
        "scheduler": task.scheduler,
        "drawing": lambda s, k, b: drawing(device, plan.training.seed, "forward", s, k, b),
    }


def _reading(samples: Batches | Stream, device: torch.device) -> dict[str, Any]:
    """Return what a loop reads batches with: it takes inputs once, in order, and targets whenever it likes."""
    read: dict[tuple[int, int], Any] = {}

    def inputs(s: int, b: int) -> tuple[Tensor, ...]:
        read[s, b] = samples.targets(s, b)
        return tuple(x.to(device) for x in samples.inputs(s, b))

    return {"inputs": inputs, "targets": lambda s, b: mapped(lambda x: x.clone().to(device), read[s, b])}


def _synchronous(plan: Plan, common: dict[str, Any]) -> Callable[[], Trained] | None:
    """Return the loop of exact gradients, which averages over groups or has one."""
    if plan.corrections or (plan.grid.groups > 1 and not _all_reduce(plan)):
        return None
    sizes = plan.turns.matrix.sizes
    made: dict[str, Any] = {"M": plan.schedule.micro_batches, "reduction": plan.reduction, "B": sizes}
    return partial(synchronous, S=plan.grid.groups, **made, **common)


def _all_reduce(plan: Plan) -> bool:
    return has_name(plan.mixing) and plan.mixing.averages_gradients


def _own_arguments(plan: Plan) -> dict[str, Any] | None:
    """Return what the method's own loop takes besides the rest; None where the run is not the method's own."""
    method, micro = plan.method, plan.schedule.micro_batches
    published = method in METHODS and method.name in OWN
    if plan.grid.groups > 1 or not published or plan.view is not find_view(method.view):
        return None
    ahead = [w - 1 for w in plan.schedule.windows]
    texts = [str(correction) for correction in plan.corrections]
    numbers = dict(text.partition("=")[::2] for text in texts)
    if len(numbers) < len(texts):  # one acts twice
        return None
    made = {"M": micro, "reduction": plan.reduction}
    if method.name == "pipedream-2bw":
        return None if numbers else made
    if method.name == "paci":
        return None if numbers else {**made, "m": ahead}
    own = numbers.keys() == {str(text).partition("=")[0] for text in method.corrections}
    if method.name == "adl":
        return {**made, "m": ahead, "beta": float(numbers["shrink"] or 0.5)} if own else None
    if micro > 1 or not own:
        return None
    if method.name in ("fdg", "fdg-forward-first"):
        return {"m": ahead, "beta": float(numbers["shrink"] or 0.5)}
    if method.name == "pipemare":
        return {"m": ahead, "anneal": float(numbers["pipemare-rate"] or max(1.0, plan.program.updates / 4))}
    return {"m": ahead}


def _of_one_group(common: dict[str, Any]) -> dict[str, Any]:
    """Leave the group out of what the loops of several take."""
    return {
        **common,
        "inputs": partial(common["inputs"], 0),
        "targets": partial(common["targets"], 0),
        "drawing": partial(common["drawing"], 0),
    }


def _alone(loop: Callable[..., tuple[list[nn.Module], list[float]]], arguments: dict[str, Any]) -> Trained:
    modules, losses = loop(**arguments)
    return [modules], [losses]


def _outer(mixing: Mixing) -> Callable[[Tensor], DiLoCo | NoLoCo] | None:
    match mixing:
        case Outer(eta, mu, alpha):
            return partial(DiLoCo, eta=eta, mu=mu, alpha=alpha)
        case NoLoCoMixing(eta, mu):
            return partial(NoLoCo, eta=eta, mu=mu)
    return None


def _grid(plan: Plan, common: dict[str, Any]) -> Callable[[], Trained] | None:
    """Return the loop of several groups that mix parameters, or of one."""
    lateral = plan.program.lateral
    covered = plan.view in (Stashed, Current) and plan.schedule.micro_batches == 1
    if not covered or plan.corrections or not has_name(plan.mixing) or _all_reduce(plan):
        return None
    m = [w - 1 for w in plan.schedule.windows]
    common = {"S": plan.grid.groups, "m": m, "view": name_of_view(plan.view), **common}
    if isinstance(lateral, InStep | Recorded):
        return None if plan.momentum else partial(pairs, met=partial(_met, lateral), **common)
    mixing: dict[str, Any] = {}
    if plan.mixing.name in RULES:
        mixing = {"between": RULES[plan.mixing.name](plan.turns.matrix.weights, plan.turns.period)}
    elif isinstance(lateral, Averaging):
        mixing = {
            "P": lateral.mixing.weights,
            "adapt_first": lateral.adapt_first,
            "H": lateral.period,
            "c": lateral.lag,
            "B": plan.turns.matrix.sizes,
            "fragments": lateral.fragments > 1,
            "outer": _outer(plan.mixing),
            "mix_momentum": plan.momentum,
            "rule": plan.turns.lag_rule,
            "p": plan.turns.sparse,
            "parts": partial(generator, plan.training.seed, "parts"),
            "planned": plan.updates,
            "gamma": plan.mixing.gamma if isinstance(plan.mixing, Choco) else None,
        }
    mixing["codecs"] = {kind: str(codec) for kind, codec in plan.codecs.items()}
    return partial(grid, **mixing, **common)


def _met(lateral: InStep | Recorded, group: int, stage: int) -> Iterator[Met]:
    """Yield whom a unit met, as the loop takes it."""
    for one in lateral.meetings(Unit(group, stage)):
        answered, asks = (None if q is None else q.number for q in (one.answered, one.asks))
        yield Met(one.update, answered, [(q.asker, q.number) for q in one.takes], asks)
