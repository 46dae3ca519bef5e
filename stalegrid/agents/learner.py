"""The agent of one learner: pulls weights, computes the gradient of a batch at them, pushes it.

Does not know: engines, other learners, what servers do with a gradient.
"""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from stalegrid.agents.pipeline import Samples
from stalegrid.errors import NonFiniteLoss, TrainingError
from stalegrid.objects import (
    LossFunction,
    Memory,
    State,
    call,
    labels,
    losses,
    mapped,
    spread,
)
from stalegrid.observe import count_correct
from stalegrid.partition import Shard
from stalegrid.programs import Action, Kind, Message, Unit
from stalegrid.stages import Entry, Weights

Tensors = tuple[Tensor, ...]

LOOK = 64
"""Batches from one look at all of a model's tensors to the next, dearer than a small batch; at first sooner."""


class Learner:
    """Executes the actions of a learner.

    Running statistics (batch normalisation) are the learner's own, as in data parallelism without synchronised
    normalisation; they travel with its gradients to the first server, whose model has their mean.

    Args:
        unit: its coordinates.
        model: its own copy of the whole model.
        shards: what each server has.
        samples: the data; the learner's batches are those of its group.
        loss: (outputs, targets) -> mean over the samples, or sum and count.
        device: of the model.
        momentum: of the learner's own gradients, ``v <- momentum v + g``, which it pushes instead; None for the
            gradients themselves.
        moving: frozen parameters that the forward changes; they travel like running statistics.
        sums: whether a loss is a sum and what it counts, which servers then divide by.
    """

    def __init__(
        self,
        unit: Unit,
        model: nn.Module,
        shards: Sequence[Shard],
        samples: Samples,
        loss: LossFunction,
        device: torch.device,
        momentum: float | None = None,
        moving: Collection[str] = (),
        sums: bool = False,
    ) -> None:
        self._unit = unit
        self._model = model.train()
        self._weights = Weights(model, moving)
        self._places = self._weights.places()
        self._shares = [[p for e, p in self._places if e.name in set(shard.names)] for shard in shards]
        self._shards = shards
        self._samples = samples
        self._loss = loss
        self._device = device
        self._momentum = momentum
        self._sums = sums
        trained = 0 if momentum is None else self._weights.trained
        self._velocity = torch.zeros_like(self._weights.flat[:trained])
        self._batches = 0
        self._made: tuple[Tensor, Tensor] | None = None  # loss, and samples, loss, correct and count as numbers

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        if action.kind is Kind.FORWARD:
            self._pull(inbox)
            self._made = self._forward(action.index)
            return []
        if action.kind is Kind.STOP:
            self._weights.check()
            return [Message(tag, self._weights.version, ()) for tag in action.sends]
        assert action.kind is Kind.BACKWARD
        gradient, numbers = self._backward()
        version = self._weights.version

        def content(server: int) -> Tensors:
            return *self._part(server, gradient), numbers, self._used(server)

        made = [Message(tag, version, content(tag.edge.target.stage)) for tag in action.sends]
        self._weights.zero_grad()  # what a forward sees of gradients is what a plain loop has zeroed
        return made

    def remember(self) -> None:
        """Look at the objects of the learner; see :class:`stalegrid.agents.Agent`."""
        model = self._model
        hooks = {n: (p._backward_hooks, p._post_accumulate_grad_hooks) for n, p in model.named_parameters()}
        given = [*self._weights.trainable(), *model.parameters(), *model.buffers(), self._weights.flat]
        self._objects = Memory({"model": model, "loss": self._loss, "hooks": hooks}, given)

    def state_dict(self) -> State:
        """Return all that the learner needs to go on from here, between two batches: servers give it the weights."""
        return {
            "followers": self._weights.flat[self._weights.trained :],
            "counters": self._weights.counters(),
            "velocity": self._velocity,
            "batches": self._batches,
            "objects": self._objects.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._weights.flat[self._weights.trained :] = state["followers"]
        for name, value in state["counters"].items():
            self._weights.counters()[name].copy_(value)
        self._velocity.copy_(state["velocity"])
        self._batches = state["batches"]
        self._objects.load_state_dict(state["objects"])

    def _pull(self, inbox: Sequence[Message]) -> None:
        for message in inbox:
            shard = self._shards[message.tag.edge.source.stage]
            self._weights.flat[shard.start : shard.stop] = message.tensors[0]
        # One version: all servers go through the same ones.
        (self._weights.version,) = {message.version for message in inbox}

    def _forward(self, batch: int) -> tuple[Tensor, Tensor]:
        group = self._unit.group
        inputs = [x.to(self._device, non_blocking=True) for x in self._samples.inputs(group, batch)]
        targets = mapped(lambda x: x.to(self._device, non_blocking=True), self._samples.targets(group, batch))
        changes = self._weights.changes()
        outputs = spread(call(self._model, self._samples.form, inputs))
        self._weights.check_unchanged(changes)
        with labels.named(outputs[0], targets, lambda: self._samples.indices(group, batch), self._loss):
            found = self._loss(*outputs, targets)
        if (wrong := losses.fault(found, self._sums)) is not None:
            raise TrainingError(f"{wrong} (learner: {group}, batch: {batch})")
        loss, count = losses.parted(found)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"the loss is {value} (learner: {group}, batch: {batch}, version: {self._weights.version}); "
                "lower the learning rate, take the staleness rule inverse, or fewer splits (softsync)"
            )
        correct, samples = float(count_correct(outputs[0], targets)), len(self._samples.indices(group, batch))
        numbers = [samples, value, correct, 1.0 if count is None else float(count)]
        return loss, torch.tensor(numbers, dtype=torch.float64)

    def _backward(self) -> tuple[Tensor, Tensor]:
        assert self._made is not None
        loss, numbers = self._made
        self._made = None
        self._batches += 1
        self._weights.check_still()
        # Batches 1, 2, 4, ...: what replaces a tensor mostly does so at once.
        if self._batches % LOOK == 0 or self._batches & (self._batches - 1) == 0:
            self._weights.check()
        loss.backward()  # type: ignore[no-untyped-call]
        # A new vector for every batch: the last one may still be under way.
        pushed = torch.zeros_like(self._weights.flat[: self._weights.trained])
        for entry, parameter in self._places:
            if parameter.grad is not None:
                entry.view(pushed).copy_(self._accelerated(entry, parameter.grad))
        return pushed, numbers

    def _accelerated(self, entry: Entry, gradient: Tensor) -> Tensor:
        """Return what the learner makes of a gradient; a parameter that was not used keeps its velocity."""
        if self._momentum is None:
            return gradient
        return entry.view(self._velocity).mul_(self._momentum).add_(gradient)

    def _part(self, number: int, gradient: Tensor) -> Tensors:
        """Return what a server gets: its part of the gradient, and the first one the running statistics too."""
        shard = self._shards[number]
        part = gradient[shard.start : shard.stop]
        if number:
            return part, torch.empty(0, dtype=torch.int64, device=self._device)
        if shard.buffers:
            part = torch.cat([part, self._weights.flat[self._weights.trained :]])
        return part, self._weights.counted()

    def _used(self, number: int) -> Tensor:
        """Return which parameters of a server the batch gave a gradient: 1 or 0 each."""
        # Told and not guessed from zeros: dead units have gradients of exactly 0, which decay and momentum must see.
        return torch.tensor([p.grad is not None for p in self._shares[number]], dtype=torch.uint8)
