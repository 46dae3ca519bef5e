"""The agent of one unit (s,k): forward, backward, update, exchange, report.

Does not know: engines, files, the order of its actions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.errors import StalenessExceeded
from stalegrid.grid import Unit
from stalegrid.messages import Message
from stalegrid.observe.records import Loss, Tally, count_correct
from stalegrid.program import Action, Kind
from stalegrid.stage import Stage


class Samples(Protocol):
    """Batches as a pure function of (group, batch)."""

    def inputs(self, group: int, batch: int) -> tuple[Tensor, ...]:
        """Return what the first stage reads."""

    def targets(self, group: int, batch: int) -> Tensor:
        """Return what the last stage compares with."""


class Exchange(Protocol):
    """What lateral actions do to a unit's parameters or gradients."""

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute a share, a reduce or a mix."""


@dataclass(frozen=True, slots=True)
class Role:
    """Where a unit stands.

    Args:
        unit: its coordinates.
        stages: K.
        micro_batches: M, batches an update averages over.
        bound: staleness in updates that no gradient may exceed.
    """

    unit: Unit
    stages: int
    micro_batches: int
    bound: int

    @property
    def first(self) -> bool:
        """Whether the unit reads inputs."""
        return self.unit.stage == 0

    @property
    def last(self) -> bool:
        """Whether the unit computes the loss."""
        return self.unit.stage == self.stages - 1


class PipelineUnit:
    """Executes the actions of one unit.

    Args:
        role: where it stands.
        stage: its module, weights and batches in flight.
        samples: the data.
        loss: (outputs, targets) -> loss averaged over the samples, shape ().
        optimizer: over the stage's parameters.
        scheduler: stepped once an update, so that every stage uses the same rate for the same batch.
        exchange: with other groups, if there is any.
        device: of the stage.
    """

    def __init__(
        self,
        role: Role,
        stage: Stage,
        samples: Samples,
        loss: Callable[..., Tensor],
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        exchange: Exchange | None,
        device: torch.device,
    ) -> None:
        self.role = role
        self.stage = stage
        self._samples = samples
        self._loss = loss
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._exchange = exchange
        self._device = device
        self._tally = Tally(role.unit)
        self._lr = 0.0
        self._used: list[tuple[int, int]] = []  # (batch, version of its forward) of the update to come
        self._losses: dict[int, Loss] = {}  # of batches in flight
        # Gradients are averaged over micro-batches here and nowhere else.
        self._seed = torch.tensor(1.0 / role.micro_batches, device=device)

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        match action.kind:
            case Kind.FORWARD:
                made = self._forward(action.index, inbox)
            case Kind.BACKWARD:
                made = self._backward(action.index, inbox)
            case Kind.UPDATE:
                made = self._update(action.index)
            case Kind.REPORT:
                made = (self._tally.close(self._lr).vector(),)
            case Kind.SNAPSHOT:
                made = self._snapshot()
            case _:
                assert self._exchange is not None
                return self._exchange.step(action, inbox)
        return [Message(tag, self.stage.weights.version, made) for tag in action.sends]

    def _forward(self, batch: int, inbox: Sequence[Message]) -> tuple[Tensor, ...]:
        tensors = inbox[0].tensors if inbox else self._read(batch)
        if not self.role.last:
            return self.stage.forward(batch, tensors)
        targets = self._samples.targets(self.role.unit.group, batch).to(self._device, non_blocking=True)
        correct: list[Tensor] = []

        def head(*outputs: Tensor) -> Tensor:
            correct.append(count_correct(outputs[0].detach(), targets))
            return self._loss(*outputs, targets)

        made = self.stage.forward(batch, tensors, head)
        self._losses[batch] = Loss(len(targets), made[0], correct[0])
        return ()

    def _read(self, batch: int) -> tuple[Tensor, ...]:
        inputs = self._samples.inputs(self.role.unit.group, batch)
        return tuple(x.to(self._device, non_blocking=True) for x in inputs)

    def _backward(self, batch: int, inbox: Sequence[Message]) -> tuple[Tensor, ...]:
        if batch % self.role.micro_batches == 0:
            self.stage.weights.zero_grad()
        gradients = inbox[0].tensors if inbox else (self._seed,)
        below, version = self.stage.backward(batch, gradients)
        self._used.append((batch, version))
        return below

    def _update(self, update: int) -> tuple[Tensor, ...]:
        weights = self.stage.weights
        for batch, version in self._used:
            self._account(batch, weights.version - version)
        self._used.clear()
        self._lr = float(self._optimizer.param_groups[0]["lr"])
        self.stage.view.overwriting()
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        weights.version += 1
        assert weights.version == update + 1
        return ()

    def _account(self, batch: int, staleness: int) -> None:
        if staleness > self.role.bound:
            raise StalenessExceeded(
                f"a gradient is staler than declared (unit: {self.role.unit}, batch: {batch}, "
                f"version: {self.stage.weights.version}, staleness: {staleness}, bound: {self.role.bound})"
            )
        self._tally.used(batch, self.stage.weights.version, staleness, self._losses.pop(batch, None))

    def _snapshot(self) -> tuple[Tensor, ...]:
        self._tally.check()
        weights = self.stage.weights
        weights.check()
        counters = [b.flatten().to(torch.int64) for b in weights.counters().values()]
        return weights.flat.clone(), torch.cat([torch.empty(0, dtype=torch.int64, device=self._device), *counters])
