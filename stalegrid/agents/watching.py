"""What every observer does: it hands on what units report and what was measured, and says whether the run ends.

Does not know: how a model is measured, engines, clocks, files.

An agent with a program of its own, so "the model at version n" (every stage after exactly n updates) is measured
without draining a pipeline, and no unit ever waits for a file or a console.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from stalegrid.agents.sent import Sent
from stalegrid.errors import NonFiniteLoss
from stalegrid.observe import Record, Sink
from stalegrid.programs import Action, Kind, Message, Unit


class Watching:
    """Executes the actions of an observer; inherit, and say how a version is measured.

    Args:
        summarise: reports by unit -> what a record says of them.
        epochs: version -> passes over the data that were trained.
        sink: where observations go.
        sent: how much units have sent each other.
    """

    def __init__(
        self,
        summarise: Callable[[Mapping[Unit, Tensor]], Record],
        epochs: Callable[[int], float],
        sink: Sink,
        sent: Sent,
    ) -> None:
        self._summarise = summarise
        self._epochs = epochs
        self._sink = sink
        self._sent = sent

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        if action.kind is Kind.REPORT:
            self._sink.report(self._report(action.index, inbox))
        if action.kind is Kind.COLLECT:
            told = self._collect(action.index, inbox)
            return [Message(tag, action.index, told) for tag in action.sends]
        if action.kind is Kind.EVALUATE:
            self._evaluate(action.index, inbox)
        elif action.kind is Kind.JUDGE:
            stop = torch.tensor([self._sink.stops()], dtype=torch.uint8)
            return [Message(tag, action.index, (stop,)) for tag in action.sends]
        return []

    def _collect(self, version: int, inbox: Sequence[Message]) -> tuple[Tensor, ...]:
        """Take what is told of a version; return what is told on."""
        raise NotImplementedError

    def _evaluate(self, index: int, inbox: Sequence[Message]) -> None:
        """Measure it, or take what was measured."""
        raise NotImplementedError

    def _report(self, update: int, inbox: Sequence[Message]) -> Record:
        found = self._summarise({m.tag.edge.source: m.tensors[0] for m in inbox})
        return {"update": update + 1, "epoch": self._epochs(update + 1), **found, **self._sent.until(update + 1)}

    def _hand_over(self, record: Record, model: nn.Module, infinite: str | None) -> None:
        """Hand on what was measured, and end the run if the model that was measured is none any more.

        Args:
            record: of the measurement.
            model: that was measured.
            infinite: name of a parameter that is trained and is infinite or not a number; None for none.

        Raises:
            NonFiniteLoss: there is one.
        """
        # First what was measured, which shows how the run went wrong.
        self._sink.evaluation(record, model)
        if infinite is not None:
            raise NonFiniteLoss(
                f"the mean model is not finite (parameter: {infinite}, version: {record['version']}); lower the "
                "learning rate or the staleness, or clip the gradients"
            )
