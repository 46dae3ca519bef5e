"""A mixing of the user's own, walked through without tensors: what would wait for ever is said before anything starts.

Does not know: which mixings there are, engines.

Mixings that have a name are not walked through: tests show what they do.
"""

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stalegrid.consensus.mixing import Mixing, Telling, Turns, Vectors
from stalegrid.consensus.mixings import CombineWhileAdapt
from stalegrid.errors import ConfigError
from stalegrid.programs import Action, Edge, Kind, Program, Tag, TensorSpec, Unit
from stalegrid.stages import Weights
from stalegrid.written import said, text_of

LATERAL = (Kind.SHARE, Kind.REDUCE, Kind.MIX)


def check_mixing(
    mixing: Mixing, turns: Turns, program: Program, vectors: Sequence[Vectors], weights: Sequence[Weights]
) -> None:
    """Refuse a mixing whose messages do not meet, or that does not say what they are.

    Args:
        mixing: of the user's own.
        turns: of the run.
        program: of the run.
        vectors: of each stage.
        weights: likewise, of copies.

    Raises:
        ConfigError: something is missing, or groups would wait for each other.
    """
    name = text_of(mixing)
    try:
        mixing = copy.deepcopy(mixing)  # which is tried, so that nothing of it is left in the user's
        few = _few(turns, program)
        short = replace(program, updates=few, lateral=mixing.lateral(replace(turns, updates=few)), watch=None)
        edges, acts = _walk(name, short)
        if isinstance(mixing, CombineWhileAdapt):
            _check_pull(name, mixing, weights[0].flat)
        for edge in edges:
            _check_layout(name, mixing, edge, turns, vectors)
        for unit in acts:
            _check_exchange(name, mixing, unit, turns, weights[unit.stage])
    except ConfigError:
        raise
    except Exception as problem:  # the mixing is the user's: anything can be raised
        raise ConfigError(f"the mixing fails (mixing: {name}): {said(problem)}") from problem


def _few(turns: Turns, program: Program) -> int:
    """Return enough updates for every turn of the cycle, and for what is late to come."""
    cycle = max(1, turns.period) * len(turns.matrix.matrices)
    return min(program.updates, cycle + max(0, turns.lag) + max(program.schedule.windows) + 4)


def _walk(name: str, program: Program) -> tuple[set[Edge], list[Unit]]:
    """Let all units go through their actions; return the edges between groups, and who acts on them."""
    waiting: dict[Edge, deque[Tag]] = {edge: deque() for unit in program.units for edge in program.inbound(unit)}
    programs = {unit: program.actions(unit) for unit in program.units}
    due = {unit: next(actions) for unit, actions in programs.items()}
    acts: dict[Unit, None] = {}
    while due:
        able = [unit for unit, action in due.items() if _here(name, action, waiting)]
        if not able:
            unit, action = next(iter(due.items()))
            missing = next(tag for tag in action.needs if not waiting[tag.edge])
            raise ConfigError(
                f"groups would wait for each other (mixing: {name}, {unit} waits at {action} for: {missing}); let "
                "somebody send that before"
            )
        for unit in able:
            action = due[unit]
            for tag in action.needs:
                waiting[tag.edge].popleft()
            for tag in action.sends:
                _known(name, tag, waiting).append(tag)
            if action.kind in LATERAL:
                acts[unit] = None
            following = next(programs[unit], None)
            if following is None:
                del due[unit]
            else:
                due[unit] = following
    if left := next((tags[0] for tags in waiting.values() if tags), None):
        raise ConfigError(f"a message would never be taken (mixing: {name}, message: {left}); let an action need it")
    return {edge for edge in waiting if edge.source.stage == edge.target.stage}, list(acts)


def _here(name: str, action: Action, waiting: dict[Edge, deque[Tag]]) -> bool:
    for tag in action.needs:
        queue = _known(name, tag, waiting)
        if not queue:
            return False
        if queue[0] != tag:
            raise ConfigError(
                f"messages of an edge are taken in the order in which they were sent (mixing: {name}, sent: "
                f"{queue[0]}, taken: {tag})"
            )
    return True


def _known(name: str, tag: Tag, waiting: dict[Edge, deque[Tag]]) -> deque[Tag]:
    if tag.edge not in waiting:
        raise ConfigError(
            f"a message travels on an edge that its target does not name (mixing: {name}, message: {tag}); let edges() "
            "yield it"
        )
    return waiting[tag.edge]


def _check_layout(name: str, mixing: Mixing, edge: Edge, turns: Turns, vectors: Sequence[Vectors]) -> None:
    try:
        layout = mixing.layout(edge, turns, vectors[edge.source.stage])
    except NotImplementedError:
        layout = None
    if not (isinstance(layout, tuple) and layout and all(isinstance(spec, TensorSpec) for spec in layout)):
        raise ConfigError(
            f"a mixing that sends must say what every message of an edge consists of (mixing: {name}, edge: {edge}, "
            f"layout: {layout}); override layout, as in stalegrid.flat_layout(numel, dtype)"
        )


def _check_pull(name: str, mixing: CombineWhileAdapt, vector: Tensor) -> None:
    made = mixing.pull(torch.zeros_like(vector), 0.5)
    if not isinstance(made, Tensor) or (made.shape, made.dtype) != (vector.shape, vector.dtype):
        shown = f"{made.dtype} of shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise ConfigError(
            f"a neighbour pulls at every number (mixing: {name}, pull returned: {shown}, gap: {vector.dtype} of shape "
            f"{tuple(vector.shape)}); return a vector like the gap"
        )


def _check_exchange(name: str, mixing: Mixing, unit: Unit, turns: Turns, weights: Weights) -> None:
    made = mixing.exchange(turns, unit, weights, None)
    if not callable(getattr(made, "step", None)):
        raise ConfigError(
            f"a mixing with actions must say what they do (mixing: {name}, exchange returned: {type(made).__name__}); "
            "override exchange, and return something with step(action, inbox)"
        )
    told = len(made.told()) if isinstance(made, Telling) else 0
    if told != len(mixing.tells):
        raise ConfigError(
            f"an exchange tells as many numbers as its mixing names (mixing: {name}, tells: {', '.join(mixing.tells)}, "
            f"told: {told}); let told() return one for each, or leave both out"
        )
