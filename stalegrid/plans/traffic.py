"""What units send each other for an update, in bytes, by kind of edge; in closed form from what messages consist of.

Does not know: engines, how messages travel and what they are wrapped in.

A message is counted in the update for which it is taken: that of its batch, or in which it is mixed.  As programs are
alike on all engines so is this, and it depends on nothing that is only watched: what goes to and from the observer, and
what is asked of a run, is not counted.  Where batches of as many samples have several shapes, nobody knows beforehand
which comes when, and the largest is counted.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from stalegrid.consensus import Mixing, Turns
from stalegrid.plans.exchanged import VECTOR, Exchanged
from stalegrid.plans.plan import Plan
from stalegrid.plans.served import ServedPlan
from stalegrid.programs import DOOR, Edge, Grid, Layout, Program, Tag, stale

OF_BATCHES = ("activation", "gradient", "target")
"""Edges whose messages are as large as batches."""


class Traffic:
    """Bytes that units send each other for each update of a run.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: Plan | ServedPlan) -> None:
        self._plan = plan
        self._batches: dict[tuple[int, ...], Counter[str]] = {}
        self._edges: dict[Edge, int] = {}

    def of(self, update: int) -> Mapping[str, int]:
        """Return those of an update, from 0, by kind of edge; kinds of which there are none are left out."""
        if isinstance(self._plan, ServedPlan):
            return _served(self._plan)
        plan = self._plan.at(update)
        edges = self._edges if plan is self._plan else {}
        return +(self._of_batches(plan, update) + _summed(plan.program.of_exchange(update), plan.nbytes, edges))

    def _of_batches(self, plan: Plan, update: int) -> Counter[str]:
        samples = tuple(_samples(plan, group, update) for group in range(plan.grid.groups))
        if plan.program.ties.each or plan is not self._plan:  # whose messages are not the same for every update
            return _of_batches(plan, update, samples)
        if samples not in self._batches:
            self._batches[samples] = _of_batches(plan, update, samples)
        return self._batches[samples]


def mean_traffic(plan: Plan | ServedPlan) -> dict[str, float]:
    """Return the bytes of a whole update by kind of edge, averaged over the updates in which groups exchange by turns.

    Args:
        plan: of a run.
    """
    if isinstance(plan, ServedPlan):
        return {name: float(nbytes) for name, nbytes in _served(plan).items()}
    sizes = plan.training.sizes(plan.grid.groups)

    def nbytes(edge: Edge) -> int:
        return _of_batch(plan, edge, sizes)

    return mean_of_cycle(plan.program, plan.turns, plan.mixing, nbytes)


def mean_of_cycle(program: Program, turns: Turns, mixing: Mixing, nbytes: Callable[[Edge], int]) -> dict[str, float]:
    """Return the bytes of an update by kind of edge, averaged over as many as it takes until all comes again.

    Args:
        program: of a run.
        turns: in which groups mix.
        mixing: what they exchange.
        nbytes: of every message of an edge.
    """
    cycle = mixing.cycle(turns)
    # Once the pipeline is full, and neighbours are there however late they are.
    filled = max(turns.lag + 1, program.schedule.windows[0])
    first = program.schedule.begins + -(-filled // cycle) * cycle
    # Longer than what is counted: towards the end of a run there may be less.
    last = first + 2 * cycle
    whole = mixing.lateral(dataclasses.replace(turns, updates=last, late=(), meetings=None))
    # Known beforehand, also where a run is led by what happens.
    known = {field.name: getattr(program, field.name) for field in dataclasses.fields(Program)}
    program = Program(**{**known, "updates": last, "lateral": whole})
    found, edges = Counter[str](), dict[Edge, int]()
    for update in range(first, first + cycle):
        found += _summed(program.of_batches(update), nbytes, edges)
        found += _summed(program.of_exchange(update), nbytes, edges)
    return {name: total / cycle for name, total in found.items()}


def vectors_sent(exchanged: Exchanged) -> float:
    """Return how many vectors, as long as the parameters, each group sends to others for an update, on average.

    Args:
        exchanged: what groups exchange, and when.
    """
    turns = exchanged.turns
    program = Program(Grid(turns.groups, 1), stale([0]), 1)
    sent = mean_of_cycle(program, turns, exchanged.mixing, lambda edge: exchanged.nbytes(edge, VECTOR))
    return sum(sent.values()) / (turns.groups * VECTOR)


def _of_batches(plan: Plan, update: int, samples: Sequence[int]) -> Counter[str]:
    return _summed(plan.program.of_batches(update), lambda edge: _of_batch(plan, edge, samples), {})


def _of_batch(plan: Plan, edge: Edge, samples: Sequence[int]) -> int:
    """Return the bytes of a message of an edge, where groups take so many samples in an update."""
    if edge.name not in OF_BATCHES:
        return plan.nbytes(edge)
    layouts, number = plan.layouts(edge), samples[edge.source.group] // plan.schedule.micro_batches
    # Not all that crosses begins with the samples: then nobody can tell, and the largest is counted.
    told = [layout for layout in layouts if layout and layout[0].shape[:1] == (number,)]
    return max(map(_plain, told or layouts))


def _samples(plan: Plan, group: int, update: int) -> int:
    if plan.numbers is None:  # of a sampler of the user's own, of whose epochs only the last batch may have fewer
        return plan.training.sizes(plan.grid.groups)[group]
    return plan.numbers.samples(group, update)


def _served(plan: ServedPlan) -> dict[str, int]:
    """Return the bytes of an update: each of its gradients is pushed, told of to other servers, and answered."""
    learner, shards = plan.program.learners[0], plan.program.shards
    edges = {
        "push": [Edge("push", learner, shard) for shard in shards],
        "weights": [Edge("weights", shard, learner) for shard in shards],
        "turn": [Edge("turn", DOOR, shard) for shard in shards[1:]],
    }
    return {
        name: plan.rules.gather * sum(_plain(plan.shapes.layout(e)) for e in of) for name, of in edges.items() if of
    }


def _plain(layout: Layout) -> int:
    return sum(spec.nbytes for spec in layout)


def _summed(tags: Iterable[Tag], nbytes: Callable[[Edge], int], known: dict[Edge, int]) -> Counter[str]:
    found = Counter[str]()
    for tag in tags:
        if tag.edge not in known:
            known[tag.edge] = nbytes(tag.edge)
        found[tag.edge.name] += known[tag.edge]
    return found
