"""The agent of one unit (s,k): forward, backward, update, exchange, report.

Does not know: engines, files, the order of its actions.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.agents.measuring import Measuring
from stalegrid.agents.sharing import Sharing
from stalegrid.agents.tied import TIED, Tied
from stalegrid.consensus import Exchange, Telling
from stalegrid.errors import TrainingError
from stalegrid.objects import (
    Form,
    LossFunction,
    Memory,
    Shapes,
    State,
    kept_apart,
    labels,
    losses,
    mapped,
    shapes_of,
    tensors_in,
)
from stalegrid.observe import Loss, Tally, count_correct
from stalegrid.partition import Otherwise, unforeseen
from stalegrid.programs import LOOK, Action, Kind, Message, Tag, Unit
from stalegrid.stages import (
    Correction,
    Gradients,
    Head,
    Ledger,
    Stage,
    Update,
    Versions,
    before_batches,
    described,
    load_optimizer,
    load_scheduler,
    parts_of,
    state_of_optimizer,
    state_of_scheduler,
)

Tensors = tuple[Tensor, ...]


class Samples(Protocol):
    """Batches as a pure function of (group, batch)."""

    def indices(self, group: int, batch: int) -> Tensor:
        """Return which samples they are, shape (B,)."""

    @property
    def form(self) -> Form:
        """How the arguments of the model are made of the inputs."""

    def inputs(self, group: int, batch: int) -> tuple[Tensor, ...]:
        """Return what the first stage reads."""

    def targets(self, group: int, batch: int) -> Any:
        """Return what the last stage compares with."""

    def checksum(self, group: int, batch: int) -> int:
        """Return 32 bits of what was just read of a batch."""


@dataclass(frozen=True, slots=True)
class Role:
    """Where a unit stands.

    Args:
        unit: its coordinates.
        stages: K.
        weight: of a batch's loss in the gradients of its update, as they are added up.
        frozen: stages below the first that trains something.
        sums: whether a loss is a sum and what it counts, and not a mean.
    """

    unit: Unit
    stages: int
    weight: float = 1.0
    frozen: int = 0
    sums: bool = False

    @property
    def lowest(self) -> bool:
        """Whether nobody below the unit needs a gradient."""
        return self.unit.stage <= self.frozen

    @property
    def last(self) -> bool:
        """Whether the unit computes the loss."""
        return self.unit.stage == self.stages - 1


@dataclass(frozen=True, slots=True)
class Parts:
    """What a unit is composed of.

    Args:
        stage: its module, weights and batches in flight.
        versions: past versions of the weights.
        ledger: what updates are made of.
        tally: what is reported.
        corrections: of gradients and learning rates, in the order in which they act.
        optimizer: over the stage's parameters.
        scheduler: stepped once an update, so that every stage uses the same rate for the same batch.
        exchange: with other groups, if there is any.
        tied: parameters that other stages use too.
        made: options of the optimizer's groups when it was made.
        measuring: what it does for evaluations; None where the observer does all.
    """

    stage: Stage
    versions: Versions
    ledger: Ledger
    tally: Tally
    corrections: tuple[Correction, ...]
    optimizer: Optimizer
    scheduler: LRScheduler | None
    exchange: Exchange | None
    tied: Tied
    made: Sequence[State]
    measuring: Measuring | Sharing | None = None


class PipelineUnit:
    """Executes the actions of one unit.

    Args:
        role: where it stands.
        parts: what it is composed of.
        samples: the data.
        loss: (outputs, targets) -> mean over the samples, or sum and count.
        device: of the stage.
        targets: form of those of a batch where they travel; None where the last stage reads them itself.
        shapes: of the inputs of batches for which the model was cut; none where it takes any.
    """

    def __init__(
        self,
        role: Role,
        parts: Parts,
        samples: Samples,
        loss: LossFunction,
        device: torch.device,
        targets: Form | None = None,
        shapes: Sequence[Shapes] = (),
    ) -> None:
        self.role = role
        self.stage = parts.stage
        self._parts = parts
        self._samples = samples
        self._loss = loss
        self._device = device
        self._targets = targets
        self._shapes = shapes
        self._lr = 0.0
        self._version = 0  # at which the last batch was forwarded
        self._used: list[int] = []  # batches of the update to come
        self._sums: dict[int, int] = {}  # of the samples that were read, by batch in flight
        self._sent_targets: dict[int, Tensors] = {}  # by batch in flight, where targets travel
        self._counts: dict[int, Tensors] = {}  # what the loss of a batch in flight counts, where it is a sum
        # Gradients are averaged over micro-batches here and nowhere else.
        # In float64, which autograd turns into the type of the loss, rounding 1/M once.
        self._seed = torch.tensor(role.weight, dtype=torch.float64, device=device)

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        match action.kind:
            case Kind.FORWARD:
                return self._sent(action, self._forward(action, self._parts.tied.renewed(inbox)))
            case Kind.RECOMPUTE:
                made = self._recompute(action.index)
            case Kind.BACKWARD:
                made = self._backward(action.index, inbox)
            case Kind.UPDATE:
                made = self._update(action.index)
            case Kind.REPORT:
                made = (self._report(),)
            case Kind.SNAPSHOT:
                made = self._snapshot(looked=any(tag.edge.name == LOOK for tag in action.sends))
            case Kind.COLLECT | Kind.EVALUATE:
                return self._measure(action, inbox)
            case Kind.HEED:
                made = ()
            case Kind.KEEP:
                self.stage.keep(action.index)
                made = ()
            case Kind.REVIVE:
                self._revive(action.index)
                made = ()
            case _:
                assert self._parts.exchange is not None
                return self._parts.exchange.step(action, inbox)
        return [self._message(tag, made) for tag in action.sends]

    def remember(self) -> None:
        """Look at the objects of the unit; see :class:`stalegrid.agents.Agent`."""
        self._objects, self.stage.memory, self._of_batches = self._memories()
        if self._parts.measuring is not None:
            self._parts.measuring.remember()

    def state_dict(self) -> State:
        """Return all that the unit needs to go on from here; see :class:`stalegrid.agents.Agent`."""
        parts = self._parts
        return {
            "reads": described(self.stage.weights, parts.optimizer, parts.scheduler, parts.made),
            "weights": self.stage.weights.state_dict(),
            "optimizer": state_of_optimizer(parts.optimizer),
            "scheduler": None if parts.scheduler is None else state_of_scheduler(parts.scheduler),
            "versions": parts.versions.state_dict(),
            "stage": self.stage.state_dict(),
            "ledger": parts.ledger.state_dict(),
            "tally": parts.tally.state_dict(),
            "objects": self._objects.state_dict(),
            "own": (self._lr, self._version, self._sums, self._counts, self._sent_targets),
            "measuring": None if parts.measuring is None else parts.measuring.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`, but for the graphs of batches in flight, which are revived.

        Where a state has none of batches in flight (:func:`without_batches`), what views and exchanges keep of those
        begins anew.
        """
        parts = self._parts
        self.stage.weights.load_state_dict(state["weights"])
        load_optimizer(parts.optimizer, state["optimizer"])
        if parts.scheduler is not None:
            load_scheduler(parts.scheduler, state["scheduler"])
        anew = None if "stage" in state else kept_apart(self._of_batches.state_dict())
        self._objects.load_state_dict(state["objects"])
        if anew is not None:
            self._of_batches.load_state_dict(anew)
            return
        parts.versions.load_state_dict(state["versions"])
        self.stage.load_state_dict(state["stage"])
        parts.ledger.load_state_dict(state["ledger"])
        parts.tally.load_state_dict(state["tally"])
        self._lr, self._version, self._sums, self._counts, self._sent_targets = state["own"]
        if parts.measuring is not None and state["measuring"] is not None:
            parts.measuring.load_state_dict(state["measuring"])

    def _memories(self) -> tuple[Memory, Memory, Memory]:
        """Return what the objects of the unit remember, those that a forward calls, and those that keep batches."""
        parts, module = self._parts, self.stage.module
        optimizers = parts_of(parts.optimizer)
        tensors = [*self.stage.weights.trainable(), *module.parameters(), *module.buffers(), self.stage.weights.flat]
        given = [*tensors, *(own for part in optimizers for own in (part.state, part.param_groups))]
        hooks = {n: (p._backward_hooks, p._post_accumulate_grad_hooks) for n, p in module.named_parameters()}
        forward = {"model": module, "loss": self._loss}
        batches = {"view": self.stage.view, "exchange": parts.exchange}
        others = {
            "hooks": hooks,
            **batches,
            "corrections": list(parts.corrections),
            "optimizer": optimizers,
            "scheduler": parts.scheduler,
        }
        return Memory({**forward, **others}, given), Memory(forward, given), Memory(batches, given)

    def _sent(self, action: Action, made: Tensors) -> list[Message]:
        """Return what a forward sends: its outputs, what others use too, and the targets where they travel."""
        group = self.role.unit.group

        def content(name: str) -> Tensors:
            return tensors_in(self._samples.targets(group, action.index)) if name == "target" else made

        return [self._message(tag, content(tag.edge.name)) for tag in action.sends]

    def _message(self, tag: Tag, made: Tensors) -> Message:
        if tag.edge.name in TIED:
            return self._parts.tied.message(tag, self._version)
        return Message(tag, self.stage.weights.version, made)

    def _forward(self, action: Action, inbox: Sequence[Message]) -> Tensors:
        batch = action.index
        tensors = inbox[0].tensors if inbox else self._read(batch)
        if self.role.last:
            return self._forward_to_loss(batch, tensors, inbox[1:])
        with self._parts.tied.lending(action) as lend:
            try:
                made, version = self.stage.forward(batch, tensors, lend=lend)
            except Otherwise:
                raise Otherwise.of(f" ({self._which(batch)})") from None
        self._note_forward(batch, version, None)
        return made

    def _forward_to_loss(self, batch: int, tensors: Tensors, sent: Sequence[Message]) -> Tensors:
        if sent:
            self._sent_targets[batch] = sent[0].tensors
        correct: list[Tensor] = []
        counts: list[Tensor | None] = []
        made, version = self.stage.forward(batch, tensors, self._head(batch, correct, counts))
        count = counts[0]
        self._counts[batch] = () if count is None else (count.view(1),)
        number = len(self._samples.indices(self.role.unit.group, batch))
        self._note_forward(batch, version, Loss(number, made[0], correct[0], count))
        return ()

    def _head(self, batch: int, correct: list[Tensor], counts: list[Tensor | None]) -> Head:
        """Return what makes a loss of outputs, and notes what it finds; what the first forward found is reported."""
        samples = partial(self._samples.indices, self.role.unit.group, batch)
        sent = self._sent_targets.get(batch)
        found = self._read_targets(batch) if self._targets is None or sent is None else self._targets.fill(_own(sent))
        targets = mapped(lambda x: x.to(self._device, non_blocking=True), found)

        def head(*outputs: Any) -> Tensor:
            correct.append(count_correct(outputs[0], targets))
            with labels.named(outputs[0], targets, samples, self._loss):
                found = self._loss(*outputs, targets)
            if (wrong := losses.fault(found, self.role.sums)) is not None:
                raise TrainingError(f"{wrong} (unit: {self.role.unit}, batch: {batch})")
            loss, count = losses.parted(found)
            counts.append(count)
            return loss

        return head

    def _revive(self, batch: int) -> None:
        """Have the graph of a batch in flight again; what its forward found was noted when it was forwarded."""
        self.stage.revive(batch, self._head(batch, [], []) if self.role.last else None)

    def _note_forward(self, batch: int, version: int, loss: Loss | None) -> None:
        self._version = version
        self._parts.ledger.forwarded(batch, version, loss)
        self._weigh()

    def _read(self, batch: int) -> Tensors:
        inputs = self._samples.inputs(self.role.unit.group, batch)
        if self._shapes and shapes_of(inputs) not in self._shapes:
            raise TrainingError(unforeseen(shapes_of(inputs), self._shapes, f", {self._which(batch)}"))
        self._note_read(batch)
        return tuple(x.to(self._device, non_blocking=True) for x in inputs)

    def _which(self, batch: int) -> str:
        sample = int(self._samples.indices(self.role.unit.group, batch)[0])
        return f"unit: {self.role.unit}, batch: {batch}, sample: {sample}"

    def _read_targets(self, batch: int) -> Any:
        targets = self._samples.targets(self.role.unit.group, batch)
        self._note_read(batch)
        return targets

    def _note_read(self, batch: int) -> None:
        """Keep the checksum of a batch that two stages read by themselves, for the observer to compare."""
        if self.role.stages > 1 and self._targets is None:
            self._sums[batch] = self._samples.checksum(self.role.unit.group, batch)

    def _recompute(self, batch: int) -> Tensors:
        self.stage.recompute(batch)
        self._weigh()
        return ()

    def _backward(self, batch: int, inbox: Sequence[Message]) -> Tensors:
        self._weigh()
        self._used.append(batch)
        inputs = [x for x in self.stage.inputs(batch) if x.is_floating_point()]
        above, later = self._parts.tied.later(batch, inbox, self._corrected)
        made = self.stage.backward(batch, self._receive(batch, above[0].tensors) if above else (self._seed,), later)
        counts = self._counts.pop(batch)
        self._sent_targets.pop(batch, None)
        for number in counts:
            self.stage.weights.count(number)
        if self.role.lowest:
            return ()
        # A message has a fixed layout: zeros for a gradient that there is none, and which there are.
        there = torch.tensor([g is not None for g in made], dtype=torch.uint8)
        filled = (torch.zeros_like(x) if g is None else g for x, g in zip(inputs, made, strict=True))
        return *filled, there, *counts

    def _receive(self, batch: int, tensors: Tensors) -> Gradients:
        above = len(tensors) - self.role.sums
        self._counts[batch] = tensors[above:]
        if not tensors:
            return ()  # an acknowledgement: nothing is trained here and below
        *made, there = tensors[:above]
        gradients = self._corrected(tuple(made))
        return tuple(g if share else None for g, share in zip(gradients, there.tolist(), strict=True))

    def _corrected(self, gradients: Tensors) -> Tensors:
        for correction in self._parts.corrections:
            gradients = correction.received(gradients)
        return gradients

    def _update(self, index: int) -> Tensors:
        weights, parts = self.stage.weights, self._parts
        if (divisor := weights.take_means()) is not None:
            parts.tally.divided(index, divisor)
        oldest = parts.ledger.oldest(self._used)
        forwarded = parts.versions.read(oldest) if any(c.needs_forwarded for c in parts.corrections) else None
        update = Update(index, weights.version - oldest, forwarded)
        for correction in parts.corrections:
            correction.correct(update)
        # After the corrections: it releases the versions that they read.
        parts.ledger.updating(self._used)
        for batch in self._used:
            parts.tally.read(self._sums.pop(batch, 0))
        self._used = []
        # The view first: it may hold the present version, which is copied only if somebody holds it.
        self.stage.view.overwriting()
        parts.versions.overwriting()
        self._step(update)
        weights.zero_grad()  # what a forward sees of gradients is what a plain loop has zeroed
        weights.version += 1
        assert weights.version == index + 1
        self._weigh()
        return ()

    def _step(self, update: Update) -> None:
        parts = self._parts
        factor = math.prod(c.rate(update) for c in parts.corrections)
        for correction in parts.corrections:
            correction.stepping(update)
        with scaled(parts.optimizer, factor):
            # Within the scaling, so that reports show the rate as it was applied.
            self._lr = float(parts.optimizer.param_groups[0]["lr"])
            parts.optimizer.step()
        for correction in parts.corrections:
            correction.stepped(update)
        if parts.scheduler is not None:
            parts.scheduler.step()

    def _weigh(self) -> None:
        parts = self._parts
        kept = sum(c.nbytes for c in parts.corrections)
        # An exchange of the user's own need not say what it keeps.
        kept += getattr(parts.exchange, "nbytes", 0)
        parts.tally.holding(self.stage.nbytes + parts.versions.nbytes + self.stage.view.nbytes + kept)

    def _measure(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        assert self._parts.measuring is not None
        if action.kind is Kind.COLLECT:
            self._check()
        return self._parts.measuring.step(action, inbox)

    def _check(self) -> None:
        # Here and not after every update: the one waits for a GPU, the other walks through all modules.
        self._parts.tally.check()
        self.stage.weights.check()

    def _report(self) -> Tensor:
        exchange, report = self._parts.exchange, self._parts.tally.close(self._lr).vector()
        if not isinstance(exchange, Telling):
            return report
        return torch.cat([report, torch.tensor(exchange.told(), dtype=report.dtype)])

    def _snapshot(self, *, looked: bool) -> Tensors:
        self._check()
        made = self.stage.weights.flat.clone(), self.stage.weights.counted()
        return (*made, torch.tensor([self._lr], dtype=torch.float64)) if looked else made


def without_batches(state: State) -> State:
    """Return the state of a unit for another one, of a group that has no batches in flight yet."""
    kept = {name: state[name] for name in ("optimizer", "scheduler", "objects")}
    return {"weights": before_batches(state["weights"], state["stage"]), **kept}


def _own(tensors: Tensors) -> Tensors:
    """Copy tensors out of a message: a loss may change its targets, and a graph that saves some keeps no message."""
    return tuple(x.clone() for x in tensors)


@contextmanager
def scaled(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Multiply every learning rate for a while; a schedule must not see it."""
    rates = [group["lr"] for group in optimizer.param_groups]
    if factor != 1.0:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
