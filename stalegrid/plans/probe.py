"""A trial of one update on copies of the stages, so that what cannot work is said before any process starts.

Does not know: groups, engines, messages.

It also shows whether late backwards are exact: a stage is forwarded, its weights are overwritten with noise, and its
backward must still give the gradients of an undisturbed one.  A custom autograd function that keeps a parameter in its
context, or activation checkpointing, fails this.  Where graphs are made by a second forward, it must repeat the first.

And it shows what training would change: a frozen parameter that the forward itself changes travels like a buffer.
"""

import dataclasses
import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.errors import ConfigError, DataError, TrainingError
from stalegrid.objects import Form, changes, copied, held, labels, leaves, losses, renewed, tensors_of
from stalegrid.plans.sorting import Sorting
from stalegrid.plans.task import Task
from stalegrid.programs import Layout, Program, Unit, layout_of
from stalegrid.seeds import drawing
from stalegrid.stages import (
    Correction,
    Maker,
    Precision,
    Site,
    StageLayout,
    Stashed,
    Update,
    View,
    Weights,
    kind_of_stage,
    name_of_view,
)

CPU = torch.device("cpu")

_Some = Sequence[Tensor | None]

_ROUNDINGS = 4
"""A compiled stage may be off by so many times what it changes to round all numbers of the plain one otherwise."""


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
        asked = _Asked(task, program, k, module, last, targets if last else None, samples, given, casting, made=made)
        found, inputs = _probed(asked, view, corrections, inputs, sorting, learning=learning, compiles=compiles)
        probed.append(found)
        if task.source is not None:
            gc.collect()  # modules and what they are hooked with hold each other, and the next stage needs the room
    return probed


def _probed(
    asked: "_Asked",
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
    trial = _Trial(asked)
    if trial.site.weights.still():
        asked = dataclasses.replace(asked, moving=_moving(trial, inputs))
        trial = _Trial(asked)
    with _said(f"a stage cannot be forwarded as the view wants it (stage: {k})"):
        outputs = trial.forward(inputs)
        trial.recompute()
    _check_leaves(task, trial)
    if view.elsewhere or learning:
        _check_reading(k, _Trial(asked), inputs)
    if tied := [*program.ties.owned(k).values(), *program.ties.mirrored(k).values()]:
        _check_tied(k, tied, _Trial(asked), inputs)
    graph = trial.stage.nbytes
    with _said(f"a backward of this stage fails (stage: {k})"):
        trial.backward(outputs)
    _check_gradients(k, trial)
    sparse = trial.sparse()
    if program.recomputes(k):
        _check_repeats(k, _Trial(asked), inputs)
    elif sparse is None and view.late(program.schedule, k):
        _check_late(k, trial, _Trial(asked), inputs)
    if compiles:
        graph = max(graph, _compiled(dataclasses.replace(asked, compiles=True), view, trial, inputs, outputs))
    _try_view(view, trial.site)
    own = _corrections(trial.site, renewed(tuple(corrections)))
    if not asked.last:
        _receive(own, outputs)
    if trial.site.weights.trainable():
        sorting.check({entry.name: p for entry, p in trial.site.weights.places()})
    _step(trial.task, trial.site, own)
    reads, vectors = any(c.needs_forwarded for c in own), sum(c.vectors for c in own)
    nbytes = sum(x.nbytes for x in inputs) if k >= program.frozen else 0
    site = trial.site if task.source is None else _without_memory(asked)
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


@dataclass(frozen=True)
class _Asked:
    """What trials of a stage are made of.

    Args:
        task: what is trained.
        program: how.
        stage: its number.
        module: of the stage.
        last: whether it computes the loss.
        targets: of the batch, on the last stage.
        samples: returns which they are.
        form: of the arguments of the module; None where it takes the inputs one by one.
        precision: what it computes in.
        moving: frozen parameters that its forward changes.
        compiles: whether torch's compiler makes code of the module.
        made: makes a copy of the module in memory.
    """

    task: Task
    program: Program
    stage: int
    module: nn.Module
    last: bool
    targets: Any
    samples: Callable[[], Tensor] | None = None
    form: Form | None = None
    precision: Precision = field(default_factory=Precision)
    moving: frozenset[str] = frozenset()
    compiles: bool = False
    made: Callable[[nn.Module], nn.Module] = copied


def _without_memory(asked: _Asked) -> Site:
    """Return what a stage is like of a model that has no memory, which all stages together are not to take either."""
    unit, optimizer = Unit(0, asked.stage), asked.task.fresh().optimizer_of
    return Site.build(unit, asked.program, copied(asked.module), optimizer, asked.moving)


class _Trial:
    """A copy of a stage, and of the functions of the task, on which to try things."""

    def __init__(self, asked: _Asked) -> None:
        own, program, stage = asked.made(asked.module), asked.program, asked.stage
        self.task = asked.task.fresh()
        self.sums = False
        self._head = self._head_on(asked.targets, asked.samples) if asked.last else None
        with _said(f"the weights of a stage cannot be held as one vector (stage: {stage})"):
            self.site = Site.build(Unit(0, stage), program, own, self.task.optimizer_of, asked.moving)
        view = View(self.site) if program.recomputes(stage) else Stashed(self.site)
        kind = kind_of_stage(program, stage)
        first, precision = stage <= program.frozen, asked.precision
        self.stage = kind(own, self.site.weights, view, first, asked.form, precision, asked.compiles)

    def forward(self, inputs: tuple[Tensor, ...], batch: int = 0) -> tuple[Tensor, ...]:
        with drawing(CPU, 0, "probe", batch):
            outputs, _ = self.stage.forward(batch, tuple(x.clone() for x in inputs), self._head)
        return outputs

    def _head_on(self, targets: Any, samples: Callable[[], Tensor] | None) -> Any:
        def head(*outputs: Any) -> Tensor:
            found = _loss_of(self.task, outputs, targets, samples)
            self.sums = losses.counted(found)
            return losses.parted(found)[0]

        return head

    def recompute(self) -> None:
        """Make the graph of batch 0, drawing what its forward drew."""
        with drawing(CPU, 0, "probe", 0):
            self.stage.recompute(0)

    def disturb(self) -> None:
        """Overwrite the weights with noise, as an update would."""
        self.site.versions.overwriting()
        weights = self.site.weights
        with drawing(CPU, 0, "disturbance"):
            weights.flat[: weights.trained].normal_()
            for name, mirror in weights.mirrored.items():
                self.stage.mirrors.renew(name, torch.randn_like(mirror), 1)
        weights.version += 1

    def backward(self, outputs: tuple[Tensor, ...]) -> None:
        with drawing(CPU, 0, "probe"):
            made = outputs if self.stage.outputs(0) else ()  # a frozen stage gets no gradient of what it made
            self.below = self.stage.backward(0, tuple(torch.ones_like(y) for y in made if y.is_floating_point()))

    def gradients(self) -> list[Tensor | None]:
        """Return those of the parameters, then those of mirrors and of the inputs."""
        mirrored = (use.gradient for use in self.stage.mirrors.used.values())
        return [*(p.grad for p in self.site.weights.module.parameters()), *mirrored, *self.below]

    def results(self, outputs: tuple[Tensor, ...]) -> tuple[_Some, _Some, _Some]:
        """Return what it has made: outputs, gradients, buffers."""
        return outputs, self.gradients(), list(self.site.weights.module.buffers())

    def sparse(self) -> str | None:
        """Return the name of a parameter whose gradient is sparse, if there is one."""
        gradients = {entry.name: p.grad for entry, p in self.site.weights.places()}
        gradients |= {name: use.gradient for name, use in self.stage.mirrors.used.items()}
        return next((n for n, g in gradients.items() if g is not None and g.layout != torch.strided), None)


def _loss_of(task: Task, outputs: tuple[Any, ...], targets: Any, samples: Callable[[], Tensor] | None) -> Any:
    known = nullcontext() if samples is None else labels.named(outputs[0], targets, samples, task.loss)
    try:
        with known:
            loss = task.loss(*outputs, targets)
    except (ConfigError, DataError):
        raise
    except Exception as problem:  # the loss is the user's: anything can be raised
        whole = "" if isinstance(targets, Tensor) else "; a batch that is no pair of input and target goes to it whole"
        raise ConfigError(
            f"the loss does not accept the model's outputs (shapes: {', '.join(map(_kind, outputs))}; targets: "
            f"{_kind(targets)}): {problem}{whole}"
        ) from problem
    if (wrong := losses.fault(loss)) is not None:
        raise ConfigError(wrong)
    return loss


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__


def _check_reading(stage: int, trial: _Trial, inputs: tuple[Tensor, ...]) -> None:
    """Refuse a forward that changes trained parameters, where it would change a copy of them that is thrown away."""
    weights = trial.site.weights
    before = weights.flat.clone()
    trial.forward(inputs, batch=2)
    moved = [e.name for e, p in weights.places() if not _same([p.detach()], [e.view(before)])]
    if moved:
        raise ConfigError(
            f"the forward changes a trained parameter in place (stage: {stage}, name: {moved[0]}), as an embedding "
            "with max_norm does, which a view that forwards at other weights, or a learner, would lose; take view "
            "stashed on a grid, or do it in the optimizer"
        )


def _check_tied(stage: int, tied: Sequence[str], trial: _Trial, inputs: tuple[Tensor, ...]) -> None:
    """Refuse a forward that changes a tied parameter, whose other uses would not see that."""
    tensors = tensors_of(trial.site.weights.module)
    before = {name: (tensors[name]._version, tensors[name].detach().clone()) for name in tied}
    trial.forward(inputs)
    trial.forward(inputs, batch=1)
    changed = [
        name
        for name, (modified, old) in before.items()
        if tensors[name]._version != modified or not _same([tensors[name].detach()], [old])
    ]
    if changed:
        raise ConfigError(
            f"the forward changes a tied parameter in place (stage: {stage}, name: {changed[0]}), as an embedding with "
            "max_norm does, and the other stages that use it would not see that; do it in the optimizer, or keep all "
            "uses in one stage (grid.tied: together)"
        )


def _moving(trial: _Trial, inputs: tuple[Tensor, ...]) -> frozenset[str]:
    """Return the frozen parameters that a forward changes, such as moving averages of those that are trained."""
    weights = trial.site.weights
    before = {name: tensor.clone() for name, tensor in weights.still().items()}
    with _said(f"a stage cannot be forwarded (stage: {trial.site.unit.stage})"):
        trial.forward(inputs)
        weights.flat[: weights.trained] *= 1.0625  # as little as an update; an average of equals would not change
        trial.forward(inputs, batch=1)
    now = tensors_of(weights.module)
    changed = {n: now[n] for n, old in before.items() if now[n].shape != old.shape or not _same([now[n]], [old])}
    for name, tensor in changed.items():
        if not isinstance(tensor, nn.Parameter) or tensor.dtype != weights.flat.dtype:
            raise ConfigError(
                f"the forward changes a tensor of another type than the parameters (name: {name}, type: "
                f"{tensor.dtype}, parameters: {weights.flat.dtype}), which replicas cannot share; give it their type"
            )
    return frozenset(changed)


def _check_leaves(task: Task, trial: _Trial) -> None:
    """Refuse a graph that gives gradients to what nobody trains."""
    stage = trial.stage
    known = {id(x) for x in [*trial.site.weights.module.parameters(), *stage.inputs(0)]}
    foreign = [leaf for leaf in leaves(stage.outputs(0)) if id(leaf) not in known]
    if not foreign:
        return
    loss = trial.task.loss.named_parameters() if isinstance(trial.task.loss, nn.Module) else ()
    names = {id(p): f"the model's own {n}" for n, p in task.model.named_parameters()}
    names |= {id(p): f"{n} of the loss" for n, p in loss}
    shown = names.get(id(foreign[0]), f"a tensor of shape {tuple(foreign[0].shape)}")
    raise ConfigError(
        f"the loss or the forward has a gradient for what nobody trains (it is: {shown}); make it a parameter of the "
        "model and read it there: what a loss needs of parameters, such as a penalty, is an output of the model"
    )


def _check_gradients(stage: int, trial: _Trial) -> None:
    trained = trial.site.weights.trainable()
    if trained and all(p.grad is None for p in trained):
        raise ConfigError(
            f"no parameter of a stage has a gradient (stage: {stage}), so it would not be trained: its outputs depend "
            "on none, or its forward runs under no_grad or detaches them"
        )


def _check_late(stage: int, exact: _Trial, late: _Trial, inputs: tuple[Tensor, ...]) -> None:
    """Hold a backward after another forward and a change of the weights against the one without."""
    outputs = late.forward(inputs)
    with _said(f"a second forward of this stage fails (stage: {stage})"):
        late.forward(inputs, batch=1)
    late.disturb()
    with _said(f"a late backward of this stage fails (stage: {stage})"):
        late.backward(outputs)
    if not _same(exact.gradients(), late.gradients()):
        raise ConfigError(
            f"a late backward of this stage would not see the weights of its forward (stage: {stage}): activation "
            "checkpointing, or a custom autograd function that keeps a parameter in its context instead of "
            "save_for_backward; change that, give the stage staleness 0, or take view recomputed"
        )


def _check_repeats(stage: int, trial: _Trial, inputs: tuple[Tensor, ...]) -> None:
    """Hold the second forward of a batch, with another one in between, against the first."""
    module = trial.site.weights.module
    before = held(module)
    first = trial.forward(inputs)
    remembered = [name for name in changes(before, held(module)) if name not in tensors_of(module)]
    trial.forward(inputs, batch=1)
    trial.recompute()
    if not _same(first, trial.stage.outputs(0)):
        raise ConfigError(
            f"a second forward of the same batch gives other outputs (stage: {stage}): its forward reads a buffer "
            "or an attribute that it also changes, or draws random numbers of its own; take view stashed"
        )
    if remembered:
        raise ConfigError(
            f"a second forward of the same batch would change an attribute once more (stage: {stage}, attribute: "
            f"{remembered[0]}); keep it in a buffer, which a second forward leaves as it is, or take view stashed"
        )


def _compiled(
    asked: _Asked, view: type[View], plain: _Trial, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> int:
    """Hold a compiled stage against the plain one, and return the bytes that a batch in flight holds with its graph."""
    k, program, trial = asked.stage, asked.program, _Trial(asked)
    with _said(f"a stage cannot be compiled (stage: {k})"):
        made = trial.forward(inputs)
        trial.recompute()
        nbytes = trial.stage.nbytes
        trial.backward(made)
    found, expected = trial.results(made), plain.results(outputs)
    close = partial(_close, lower=asked.precision.lower)
    unlike = [n for n, both in enumerate(zip(found, expected, strict=True)) if not close(*both)]
    if layout_of(made) != layout_of(outputs) or (unlike and not _as_rounded(unlike, found, expected, asked, inputs)):
        raise ConfigError(
            f"a compiled stage computes something else than the plain one, by more than rounding (stage: {k}); leave "
            "compile out"
        )
    if program.recomputes(k):
        _check_repeats(k, _Trial(asked), inputs)
    elif view.late(program.schedule, k):
        _check_late(k, trial, _Trial(asked), inputs)
    return nbytes


def _as_rounded(
    unlike: Sequence[int],
    found: Sequence[_Some],
    expected: Sequence[_Some],
    asked: _Asked,
    inputs: tuple[Tensor, ...],
) -> bool:
    """Return whether a stage that is not compiled makes what is as far from expected, begun with numbers next to its.

    Where the values of many units are all but zero, a rounding decides which of them a ReLU lets through, and so moves
    gradients by more than any bound that knows nothing of the stage.  Those alone are looked at that are unlike.
    """
    trial = _Trial(dataclasses.replace(asked, compiles=False))
    weights = trial.site.weights
    with drawing(CPU, 0, "rounding"):
        weights.flat[: weights.trained] = _next_to(weights.flat[: weights.trained])
        given = tuple(_next_to(x) if x.is_floating_point() else x for x in inputs)
    outputs = trial.forward(given)
    trial.recompute()
    trial.backward(outputs)
    rounded = trial.results(outputs)
    return all(_apart(found[n], expected[n]) <= _ROUNDINGS * _apart(rounded[n], expected[n]) for n in unlike)


def _next_to(x: Tensor) -> Tensor:
    """Return numbers that are larger or smaller by about one rounding, of themselves and of those that they meet.

    Zeros are moved too: what is padded makes the values of many units equal, and a maximum takes one of them.  Not by
    more than roundings of 1, and what has no number next to it stays: a mask leaves what it left.
    """
    others = x.square().mean().sqrt().clamp(max=1.0)
    moved = x + torch.finfo(x.dtype).eps * (x.abs() + others) * torch.randn_like(x).sign()
    return torch.where(moved.isfinite(), moved, x)


def _close(found: _Some, expected: _Some, lower: torch.dtype | None) -> bool:
    """Return whether tensors are alike but for rounding.

    Args:
        found: tensors, or none where nothing depends on one.
        expected: likewise.
        lower: a type to which something was rounded in between.
    """
    floating = {x.dtype for x in expected if x is not None and x.dtype.is_floating_point}
    rounding: float = max(torch.finfo(kind).eps for kind in {*floating, lower or torch.float64}) ** 0.5
    # All at once: a gradient by itself may be nothing but rounding, as that of a bias that a normalisation takes out.
    return _apart(found, expected) <= rounding * math.hypot(
        *(float(_wide(x).norm()) for x in expected if x is not None)
    )


def _apart(found: _Some, expected: _Some) -> float:
    """Return the length of the difference of all tensors; infinite where they cannot be held against each other."""
    kinds, wanted = ([None if x is None else (x.shape, x.dtype) for x in those] for those in (found, expected))
    if kinds != wanted:
        return math.inf
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    return math.hypot(*(float((_wide(a) - _wide(b)).norm()) for a, b in pairs))


def _wide(tensor: Tensor) -> Tensor:
    """Return a tensor in which differences are finite; what is not stays different from all that it may be instead."""
    kind = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.detach().to_dense().to(kind).nan_to_num(nan=2.0, posinf=3.0, neginf=-3.0)


def _same(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> bool:
    return all(
        a is b or (a is not None and b is not None and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
        for a, b in zip(one, other, strict=True)
    )


def _try_view(view: type[View], site: Site) -> None:
    """Ask a view once for the weights of a forward and of its backward, as a stage will."""
    with _said(f"the view cannot be built or used (view: {name_of_view(view)})"):
        own = view(site)
        version, vector = own.forwarding(0)
        _check_vector(view, "forwarding", vector, site.weights)
        if vector is not site.weights.flat and not view.elsewhere:
            raise ConfigError(
                f"the view forwards at other weights than those of now (view: {name_of_view(view)}, elsewhere: False); "
                "set elsewhere = True in its class, so that the model is tried that way"
            )
        _check_vector(view, "seen", own.seen(version), site.weights)
        own.finished(version)
        own.overwriting()
        kept = view.kept(site.schedule, site.unit.stage)
        if own.nbytes > kept.copies * site.weights.trained * site.weights.flat.itemsize:
            raise ConfigError(
                f"the view keeps more than it says (view: {name_of_view(view)}, keeps: {own.nbytes} bytes, {kept}); "
                "let kept count its vectors, each as large as the parameters"
            )


def _check_vector(view: type[View], asked: str, vector: object, weights: Weights) -> None:
    flat = weights.flat
    fits = isinstance(vector, Tensor) and vector.dim() == 1 and vector.is_contiguous()
    if not fits or vector.dtype != flat.dtype or len(vector) < weights.trained:  # type: ignore[attr-defined,arg-type]
        shown = (
            f"{vector.dtype} of shape {tuple(vector.shape)}" if isinstance(vector, Tensor) else type(vector).__name__
        )
        raise ConfigError(
            f"a view returns a vector like self.parameters, which is {flat.dtype} of shape ({weights.trained},) "
            f"(view: {name_of_view(view)}, {asked} returned: {shown})"
        )


def _corrections(site: Site, corrections: Sequence[Maker]) -> list[Correction]:
    with _said("a correction cannot be built"):
        made = [make(site) for make in corrections]
    if wrong := next((c for c in made if not isinstance(c, Correction)), None):
        raise ConfigError(
            f"this makes no correction (corrections: {type(wrong).__name__}); inherit from stalegrid.Correction, and "
            "give the class or a function of a site"
        )
    schedule = site.schedule
    one_version = schedule.micro_batches == 1 or schedule.flush or schedule.delay
    if not one_version and any(c.needs_forwarded for c in made):
        raise ConfigError(
            f"a correction reads the weights that its batch was forwarded at, and the batches of an update may differ "
            f"in them (micro_batches: {schedule.micro_batches}); take micro_batches 1"
        )
    return made


def _receive(corrections: Sequence[Correction], outputs: tuple[Tensor, ...]) -> None:
    """Let the corrections receive the gradients of a stage's outputs once."""
    given = tuple(torch.ones_like(y) for y in outputs if y.is_floating_point())
    for correction in corrections:
        with _said(f"{type(correction).__name__}.received fails"):
            shapes = [tuple(g.shape) for g in correction.received(given)]
        if shapes != [tuple(g.shape) for g in given]:
            raise ConfigError(
                f"{type(correction).__name__}.received must return a gradient for each that it is given, of its shape "
                f"(given: {[tuple(g.shape) for g in given]}, returned: {shapes})"
            )


def _step(task: Task, site: Site, corrections: Sequence[Correction]) -> None:
    """Step the corrections, the optimizer and the scheduler once."""
    update = Update(0, 0, site.weights.flat.clone())
    with _said("the corrections, the optimizer or the scheduler cannot be built or stepped"):
        scheduler = task.scheduler_of(site.optimizer)
        _check_length(scheduler, site.updates)
        for correction in corrections:
            correction.correct(update)
            float(correction.rate(update))
        for correction in corrections:
            correction.stepping(update)
        site.optimizer.step()
        for correction in corrections:
            correction.stepped(update)
        if scheduler is not None:
            scheduler.step()
    _check_kept(site, corrections)
    try:
        site.weights.check()
    except TrainingError as problem:
        raise ConfigError(str(problem)) from problem


def _check_kept(site: Site, corrections: Sequence[Correction]) -> None:
    vector = site.weights.trained * site.weights.flat.itemsize
    for correction in corrections:
        if correction.nbytes > correction.vectors * vector:
            raise ConfigError(
                f"a correction keeps more than it says (correction: {type(correction).__name__}, keeps: "
                f"{correction.nbytes} bytes, vectors: {correction.vectors} of {vector} bytes); let vectors count those "
                "that it keeps, each as large as the parameters"
            )


def _check_length(scheduler: LRScheduler | None, updates: int) -> None:
    steps = getattr(scheduler, "total_steps", None)
    if isinstance(steps, int) and steps < updates:
        raise ConfigError(
            f"the schedule is shorter than the run (total_steps: {steps}, updates: {updates}), and it is stepped after "
            "every update"
        )


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn whatever the user's own factories raise into an error of configuration."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as problem:
        raise ConfigError(f"{what}: {problem}") from problem
