"""A trial of one update on copies of the stages, so that what cannot work is said before any process starts.

Does not know: groups, engines, messages.

It also shows what training would change: a frozen parameter that the forward itself changes travels like a buffer.
"""

import dataclasses
import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, copied, renewed
from stalegrid.plans.sorting import Sorting
from stalegrid.plans.task import Task
from stalegrid.plans.trials.held_against import (
    check_gradients,
    check_late,
    check_leaves,
    check_reading,
    check_repeats,
    check_tied,
    moving,
)
from stalegrid.plans.trials.rounded import compiled
from stalegrid.plans.trials.stepped import corrections_of, receive, step, try_view
from stalegrid.plans.trials.trial import Asked, Trial, said, without_memory
from stalegrid.programs import Layout, Program, layout_of
from stalegrid.stages import (
    Maker,
    Precision,
    StageLayout,
    View,
    Weights,
)


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of a stage.

    Args:
        weights: of the copy.
        optimizer: over them.
        graph: bytes that one batch in flight holds with its graph.
        inputs: bytes of a batch's inputs, where they are kept for its backward.
        reads_forwarded: whether a correction reads the weights of every forward.
        vectors: as large as the parameters, that corrections keep.
        sparse: a parameter whose gradient is sparse; None if there is none.
        sums: whether the loss is a sum and what it counts; of the last stage.
        given: what its inputs are like.
    """

    weights: Weights
    optimizer: Optimizer
    graph: int
    inputs: int
    reads_forwarded: bool
    vectors: int
    sparse: str | None
    sums: bool
    given: Layout


def probe(
    task: Task,
    program: Program,
    view: type[View],
    corrections: Sequence[Maker],
    stages: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    targets: Any,
    samples: Callable[[], Tensor] | None = None,
    *,
    form: Form | None = None,
    learning: bool = False,
    precision: Precision = Precision(),  # noqa: B008 - it has no state
    compiles: bool = False,
    made: Callable[[nn.Module], nn.Module] = copied,
) -> list[Probed]:
    """Try forward, loss, backward, view, corrections, optimizer and scheduler on copies of the stages.

    Args:
        task: what is trained; left as it is, state of its functions included.
        program: how.
        view: which weights late backwards see.
        corrections: of each unit.
        stages: the model, cut.
        inputs: a batch.
        targets: of that batch.
        samples: returns which samples of the data they are, for errors.
        form: of the arguments of the first stage; None where it takes the inputs one by one.
        learning: whether a learner forwards, at weights that are not its own.
        precision: what it computes in.
        compiles: whether torch's compiler makes code of the stages.
        made: makes a copy of a stage in memory.

    Returns:
        What came of each stage.

    Raises:
        ConfigError: something fails, or a late backward would not be what it is said to be.
    """
    probed: list[Probed] = []
    sorting = Sorting(task)
    for k, module in enumerate(stages):
        last, given = k == len(stages) - 1, None if k else form
        casting = dataclasses.replace(precision, anew=view.casts_anew(program.schedule, k))
        asked = Asked(task, program, k, module, last, targets if last else None, samples, given, casting, made=made)
        found, inputs = _probed(asked, view, corrections, inputs, sorting, learning=learning, compiles=compiles)
        probed.append(found)
        if task.source is not None:
            gc.collect()  # modules and what they are hooked with hold each other, and the next stage needs the room
    return probed


def _probed(
    asked: "Asked",
    view: type[View],
    corrections: Sequence[Maker],
    inputs: tuple[Tensor, ...],
    sorting: Sorting,
    *,
    learning: bool,
    compiles: bool,
) -> tuple[Probed, tuple[Tensor, ...]]:
    """Try a stage, and return what came of it, and what it makes of its inputs."""
    task, program, k = asked.task, asked.program, asked.stage
    trial = Trial(asked)
    if trial.site.weights.still():
        asked = dataclasses.replace(asked, moving=moving(trial, inputs))
        trial = Trial(asked)
    with said(f"a stage cannot be forwarded as the view wants it (stage: {k})"):
        outputs = trial.forward(inputs)
        trial.recompute()
    check_leaves(task, trial)
    if view.elsewhere or learning:
        check_reading(k, Trial(asked), inputs)
    if tied := [*program.ties.owned(k).values(), *program.ties.mirrored(k).values()]:
        check_tied(k, tied, Trial(asked), inputs)
    graph = trial.stage.nbytes
    with said(f"a backward of this stage fails (stage: {k})"):
        trial.backward(outputs)
    check_gradients(k, trial)
    sparse = trial.sparse()
    if program.recomputes(k):
        check_repeats(k, Trial(asked), inputs)
    elif sparse is None and view.late(program.schedule, k):
        check_late(k, trial, Trial(asked), inputs)
    if compiles:
        graph = max(graph, compiled(dataclasses.replace(asked, compiles=True), view, trial, inputs, outputs))
    try_view(view, trial.site)
    own = corrections_of(trial.site, renewed(tuple(corrections)))
    if not asked.last:
        receive(own, outputs)
    if trial.site.weights.trainable():
        sorting.check({entry.name: p for entry, p in trial.site.weights.places()})
    step(trial.task, trial.site, own)
    reads, vectors = any(c.needs_forwarded for c in own), sum(c.vectors for c in own)
    nbytes = sum(x.nbytes for x in inputs) if k >= program.frozen else 0
    site = trial.site if task.source is None else without_memory(asked)
    sizes = (graph, nbytes, reads, vectors)
    return Probed(site.weights, site.optimizer, *sizes, sparse, trial.sums, layout_of(inputs)), outputs


def widest(trials: Iterable[list[Probed]]) -> list[Probed]:
    """Return what came of each stage with batches of several shapes: what is held is that of the largest.

    Args:
        trials: of one model, one for each shape.

    Raises:
        ConfigError: the stages are not the same for all shapes.
    """
    first, *others = trials
    for other in others:
        for k, (one, another) in enumerate(zip(first, other, strict=True)):
            _check_alike(k, one, another)
    return [
        dataclasses.replace(
            first[k],
            graph=max(trial[k].graph for trial in (first, *others)),
            inputs=max(trial[k].inputs for trial in (first, *others)),
            sparse=next((trial[k].sparse for trial in (first, *others) if trial[k].sparse is not None), None),
        )
        for k in range(len(first))
    ]


def _check_alike(stage: int, one: Probed, another: Probed) -> None:
    if one.sums != another.sums:
        raise ConfigError(
            "the loss is a sum and a count for batches of one shape and a mean for another; let it be one of them"
        )
    if StageLayout.of(one.weights) != StageLayout.of(another.weights):
        raise ConfigError(
            f"a forward changes frozen parameters with batches of one shape only (stage: {stage}); make them buffers"
        )
