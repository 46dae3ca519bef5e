"""The agent of one parameter server: takes gradients, updates its shard of the parameters, answers with them.

Does not know: engines, other servers, in which order gradients come and who is answered when.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.errors import StalenessExceeded, TrainingError
from stalegrid.objects import Memory, State
from stalegrid.observe import Takes
from stalegrid.programs import GONE, Action, Kind, Message, Rules
from stalegrid.stages import (
    Correction,
    Site,
    Update,
    load_optimizer,
    load_scheduler,
    parts_of,
    state_of_optimizer,
    state_of_scheduler,
)

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server is composed of.

    Args:
        site: its weights, their past versions, and the optimizer over them.
        corrections: of every gradient by itself, in the order in which they act.
        scheduler: stepped once an update.
        rules: how many gradients an update averages over, and how stale they may be.
        reported: gradients, and learners found to be gone, between two reports at most.
        sums: whether a loss is a sum and what it counts, and not a mean.
    """

    site: Site
    corrections: tuple[Correction, ...]
    scheduler: LRScheduler | None
    rules: Rules
    reported: int
    sums: bool = False


class Server:
    """Executes the actions of one server.

    With staleness ``tau = i - j`` of a gradient that was computed at version j and is taken at version i, an update is
    ``theta <- theta - (1/c) sum alpha(tau) g`` (arXiv 1511.05950, equation 5): the optimizer's step on the mean of the
    corrected gradients, so that momentum and weight decay are the server's.  Gradients that are sums are added up and
    divided by what all of them count; a correction gets the mean of its own.

    Args:
        parts: what it is composed of.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._weights = parts.site.weights
        self._places = self._weights.places()
        self._tally = Takes()
        self._lr = 0.0
        self._gathered = 0
        self._counted = 0.0  # what the gathered gradients count; each 1 where they are means
        trained = self._weights.trained
        self._sum = torch.zeros_like(self._weights.flat[:trained])
        self._statistics = torch.zeros_like(self._weights.flat[trained:])
        self._first = self._statistics  # those of the first gradient of an update
        self._followers = _spans([e.offset for e in self._weights.entries], trained, self._weights.flat.numel())
        self._alike = self._followers  # where each of those that have the same values so far lies
        self._used = [False] * len(self._places)  # whether a gathered gradient has used each parameter
        self._answer: Tensor | None = None  # the present version, as it was sent
        self._given: dict[int, int] = {}  # version that each learner computes on, where corrections read it
        self._reads = any(c.needs_forwarded for c in parts.corrections)
        # A copy of each gradient is only made where a correction changes it.
        self._corrects = any(type(c).correct is not Correction.correct for c in parts.corrections)

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        match action.kind:
            case Kind.TAKE:
                made = self._take(inbox[0])
            case Kind.DROP:
                self._release(action.index)
                self._tally.lose(action.index)
                made = (torch.tensor([action.index, GONE]),)
            case Kind.UPDATE:
                made = self._update()
            case Kind.ANSWER:
                made = self._give([tag.edge.target.group for tag in action.sends])
            case Kind.REPORT:
                made = (self._report(),)
            case Kind.SNAPSHOT:
                self._weights.check()
                made = (self._weights.flat.clone(), self._weights.counted())
            case _:
                assert action.kind is Kind.STOP
                made = ()
        return [Message(tag, self._weights.version, made) for tag in action.sends]

    def remember(self) -> None:
        """Look at the objects of the server; see :class:`stalegrid.agents.Agent`."""
        self._objects = self._memory()

    def state_dict(self) -> State:
        """Return all that the server needs to go on from here, which is right after an update: nothing is gathered."""
        site = self._parts.site
        return {
            "weights": self._weights.state_dict(),
            "optimizer": state_of_optimizer(site.optimizer),
            "scheduler": None if self._parts.scheduler is None else state_of_scheduler(self._parts.scheduler),
            "versions": site.versions.state_dict(),
            "tally": self._tally.state_dict(),
            "objects": self._objects.state_dict(),
            "own": (self._lr, self._given),
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        site = self._parts.site
        self._weights.load_state_dict(state["weights"])
        load_optimizer(site.optimizer, state["optimizer"])
        if self._parts.scheduler is not None:
            load_scheduler(self._parts.scheduler, state["scheduler"])
        site.versions.load_state_dict(state["versions"])
        self._tally.load_state_dict(state["tally"])
        self._objects.load_state_dict(state["objects"])
        self._lr, self._given = state["own"]

    def _memory(self) -> Memory:
        """Return what the objects of the server remember."""
        parts, module = self._parts, self._weights.module
        optimizers = parts_of(parts.site.optimizer)
        tensors = [*self._weights.trainable(), *module.parameters(), *module.buffers(), self._weights.flat]
        given = [*tensors, *(own for part in optimizers for own in (part.state, part.param_groups))]
        things = {"corrections": list(parts.corrections), "optimizer": optimizers, "scheduler": parts.scheduler}
        return Memory(things, given)

    def _take(self, message: Message) -> Tensors:
        vector, counters, numbers, there = message.tensors
        number, weights, corrections = message.tag.edge.source.group, self._weights, self._parts.corrections
        update = Update(weights.version, self._staleness(message), self._forwarded(number))
        used = [bool(share) for share in there.tolist()]
        count = float(numbers[-1])
        gradient = self._corrected(vector[: weights.trained], used, update, count)
        self._used = [a or b for a, b in zip(self._used, used, strict=True)]
        self._gather(gradient, math.prod(c.rate(update) for c in corrections))
        self._collect(vector[weights.trained :], counters)
        self._gathered += 1
        self._counted += count
        self._release(number)
        self._tally.used(number, update.staleness, numbers, mean=not self._parts.sums)
        return (torch.tensor([number, 0]),)

    def _staleness(self, message: Message) -> int:
        now, bound = self._weights.version, self._parts.rules.bound
        if bound is not None and now - message.version > bound:
            raise StalenessExceeded(
                f"a gradient is staler than declared (learner: {message.tag.edge.source.group}, batch: "
                f"{message.tag.index}, version: {now}, staleness: {now - message.version}, bound: {bound})"
            )
        return now - message.version

    def _corrected(self, gradient: Tensor, used: Sequence[bool], update: Update, count: float) -> Tensor:
        if not self._corrects or not count:
            return gradient
        own = gradient / count
        self._show(own, used)
        for correction in self._parts.corrections:
            correction.correct(update)
        for entry, parameter in self._places:
            view = entry.view(own)
            # A correction may put a tensor of its own in the place of the gradient.
            if parameter.grad is not None and parameter.grad.data_ptr() != view.data_ptr():
                view.copy_(parameter.grad)
        return own.mul_(count)

    def _gather(self, gradient: Tensor, factor: float) -> None:
        """Add to the sum, in one pass."""
        if self._gathered:
            self._sum.add_(gradient, alpha=factor)
        elif factor == 1.0:
            self._sum.copy_(gradient)
        else:
            torch.mul(gradient, factor, out=self._sum)

    def _collect(self, statistics: Tensor, counters: Tensor) -> None:
        """Take over running statistics: their mean over the gradients of an update; counters as they are."""
        if self._gathered:
            self._statistics += statistics
            self._alike = [part for part in self._alike if torch.equal(self._first[part], statistics[part])]
        else:
            self._first, self._alike = statistics, self._followers
            self._statistics.copy_(statistics)
        own = self._weights.counters().values()
        for counter, value in zip(own, torch.split(counters, [c.numel() for c in own]), strict=True):
            counter.copy_(value.view(counter.shape))

    def _update(self) -> Tensors:
        site, weights, gathered = self._parts.site, self._weights, self._gathered
        if self._counted != 1.0:
            self._sum.div_(self._divisor())
        if gathered > 1:
            self._statistics.div_(gathered)
            for part in self._alike:  # what all have alike stays as it is, which the sum of three would round
                self._statistics[part] = self._first[part]
        self._gathered, self._counted = 0, 0.0
        self._show(self._sum, self._used)
        self._used = [False] * len(self._places)
        site.versions.overwriting()
        self._lr = float(site.optimizer.param_groups[0]["lr"])
        # Without a staleness: every gradient was corrected for its own when it was taken.
        update = Update(weights.version, 0, None)
        for correction in self._parts.corrections:
            correction.stepping(update)
        site.optimizer.step()
        weights.flat[weights.trained :] = self._statistics
        for correction in self._parts.corrections:
            correction.stepped(update)
        kept = sum(c.nbytes for c in self._parts.corrections)
        self._tally.held = max(self._tally.held, site.versions.nbytes + kept)
        if self._parts.scheduler is not None:
            self._parts.scheduler.step()
        weights.version += 1
        self._answer = None
        return ()

    def _divisor(self) -> float:
        if not 0 < self._counted < math.inf:
            raise TrainingError(
                f"nothing is counted in the loss of an update (version: {self._weights.version}, count: "
                f"{self._counted:g}), so its mean is no number; take larger batches, or leave out samples of which "
                "nothing counts"
            )
        return self._counted

    def _give(self, learners: Sequence[int]) -> Tensors:
        weights = self._weights
        # A copy for each version and not for each learner: whoever gets it must not change it.
        if self._answer is None:
            self._answer = weights.flat[: weights.trained].clone()
        if self._reads:
            for number in learners:
                self._parts.site.versions.hold(weights.version)
                self._given[number] = weights.version
        return (self._answer,)

    def _forwarded(self, number: int) -> Tensor | None:
        return self._parts.site.versions.read(self._given[number]) if self._reads else None

    def _release(self, number: int) -> None:
        if (version := self._given.pop(number, None)) is not None:
            self._parts.site.versions.release(version)

    def _report(self) -> Tensor:
        self._tally.lr = self._lr
        done, self._tally = self._tally, Takes()
        return done.vector(self._parts.reported)

    def _show(self, vector: Tensor, used: Sequence[bool]) -> None:
        """Let parameters that were used have their gradients in a vector; others have none, and are not updated."""
        for (entry, parameter), there in zip(self._places, used, strict=True):
            parameter.grad = entry.view(vector) if there else None


def _spans(offsets: Sequence[int], start: int, stop: int) -> list[slice]:
    """Return where in the statistics, which begin at ``start``, each tensor of them lies."""
    begins = [offset for offset in offsets if offset >= start]
    return [slice(a - start, b - start) for a, b in pairwise([*begins, stop])]
