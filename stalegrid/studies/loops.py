"""Which plain loop says what a run computes, and how it is called.

Does not know: engines, agents, how any loop works.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.consensus import Averaging, Choco, has_name
from stalegrid.data import Batches, Stream
from stalegrid.methods import METHODS
from stalegrid.objects import mapped
from stalegrid.plans import Plan, ServedPlan, Task, make_batches, precision_of, server_optimizer, whole_model
from stalegrid.programs import Ordered
from stalegrid.seeds import drawing
from stalegrid.stages import Current, Stashed, find_view, name_of_view
from stalegrid.studies.reference.async_nesterov import async_nesterov
from stalegrid.studies.reference.ddg import ddg
from stalegrid.studies.reference.dsp import dsp
from stalegrid.studies.reference.fdg import fdg
from stalegrid.studies.reference.features_replay import features_replay
from stalegrid.studies.reference.grid import grid
from stalegrid.studies.reference.hardsync import hardsync
from stalegrid.studies.reference.paci import paci
from stalegrid.studies.reference.pipedream import pipedream
from stalegrid.studies.reference.pipedream_2bw import pipedream_2bw
from stalegrid.studies.reference.pipemare import pipemare
from stalegrid.studies.reference.pipeoptim import pipeoptim
from stalegrid.studies.reference.softsync import softsync
from stalegrid.studies.reference.spectrain import spectrain
from stalegrid.studies.reference.synchronous import synchronous
from stalegrid.studies.whole import lowered, wrapped

Trained = tuple[list[list[nn.Module]], list[list[float]]]
"""Stage modules [s][k] and losses [s][n]."""

OWN: dict[str, Callable[..., tuple[list[nn.Module], list[float]]]] = {
    "dsp": dsp,
    "fdg": fdg,
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
    if isinstance(plan, ServedPlan):
        return _served(task, plan, device)
    if plan.training.compile:
        return None  # these loops have no compiled stages, which round otherwise
    if precision_of(plan.training).lower is not None and _casts_anew(plan):
        return None  # these loops write weights under a graph, which has casts of those that were there
    common = _common(task, plan, device)
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


def _casts_anew(plan: Plan) -> bool:
    return any(plan.view.casts_anew(plan.schedule, k) for k in range(plan.grid.stages))


def _served(task: Task, plan: ServedPlan, device: torch.device) -> Callable[[], Trained] | None:
    """Return the loop of learners and a server, where the order of deliveries is known."""
    rules, program, precision = plan.rules, plan.program, precision_of(plan.training)
    samples = make_batches(task, plan.training, plan.grid.groups, 1)
    common: dict[str, Any] = {
        "model": wrapped([whole_model(task, plan.training).to(device)], samples.form, precision)[0],
        "learners": rules.learners,
        "N": program.updates,
        **_reading(samples, device),
        "loss": lowered(task.loss, precision),
        "optimizer": server_optimizer(task, plan.momentum),
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


def _common(task: Task, plan: Plan, device: torch.device) -> dict[str, Any]:
    samples = make_batches(task, plan.training, plan.grid.groups, plan.schedule.micro_batches)
    stages = plan.partition.stages(whole_model(task, plan.training).to(device))
    precision = precision_of(plan.training)
    return {
        "stages": wrapped(stages, plan.partition.form, precision),
        "N": plan.program.updates,
        **_reading(samples, device),
        "loss": lowered(task.loss, precision),
        "optimizer": task.optimizer_of,
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
    return partial(synchronous, S=plan.grid.groups, M=plan.schedule.micro_batches, B=sizes, **common)


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
    if method.name == "pipedream-2bw":
        return None if numbers else {"M": micro}
    if method.name == "paci":
        return None if numbers else {"M": micro, "m": ahead}
    if micro > 1 or numbers.keys() != {str(text).partition("=")[0] for text in method.corrections}:
        return None
    if method.name == "fdg":
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


def _grid(plan: Plan, common: dict[str, Any]) -> Callable[[], Trained] | None:
    """Return the loop of several groups that mix parameters, or of one."""
    lateral = plan.program.lateral
    covered = plan.view in (Stashed, Current) and plan.schedule.micro_batches == 1
    if not covered or plan.corrections or not has_name(plan.mixing) or _all_reduce(plan):
        return None
    mixing: dict[str, Any] = {}
    if isinstance(lateral, Averaging):
        mixing = {
            "P": lateral.mixing.weights,
            "adapt_first": lateral.adapt_first,
            "H": lateral.period,
            "c": lateral.lag,
            "mix_momentum": plan.momentum,
            "gamma": plan.mixing.gamma if isinstance(plan.mixing, Choco) else None,
        }
    mixing["codecs"] = {kind: str(codec) for kind, codec in plan.codecs.items()}
    m = [w - 1 for w in plan.schedule.windows]
    return partial(grid, S=plan.grid.groups, m=m, view=name_of_view(plan.view), **mixing, **common)
