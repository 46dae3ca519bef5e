"""The observer where stages measure the model: it adds up their numbers, and never has a model.

Does not know: engines, clocks, files; it hands records to a sink.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from stalegrid.agents.evaluation import measured
from stalegrid.agents.replicas import Unlike
from stalegrid.agents.sent import Sent
from stalegrid.agents.watching import Watching
from stalegrid.objects import State
from stalegrid.observe import PREFIX, SUMS, MeanReport, Record, Sink
from stalegrid.programs import Message, Unit
from stalegrid.stages import StageLayout


class Listener(Watching):
    """Executes the observer's actions.

    Args:
        layouts: of the stages.
        weights: of the groups whose mean is measured.
        summarise: reports by unit -> what a record says of them.
        model: without values, which sinks are given in the place of the model.
        metrics: names of what is measured beside loss and accuracy.
        tested: whether there is test data.
        epochs: version -> passes over the data that were trained.
        sink: where observations go.
        sent: how much units have sent each other.
    """

    def __init__(
        self,
        layouts: Sequence[StageLayout],
        weights: Sequence[float],
        summarise: Callable[[Mapping[Unit, Tensor]], Record],
        model: nn.Module,
        metrics: Sequence[str],
        tested: bool,
        epochs: Callable[[int], float],
        sink: Sink,
        sent: Sent,
    ) -> None:
        super().__init__(summarise, epochs, sink, sent)
        self._layouts = layouts
        self._weights = weights
        self._model = model
        self._metrics = metrics
        self._tested = tested
        self._unlike = Unlike()
        self._record: Record = {}
        self._infinite: str | None = None

    def remember(self) -> None:
        """Do nothing: it has no objects of a user."""

    def state_dict(self) -> State:
        """Return what was told once, and what the sink has; a run is saved when nothing is being measured."""
        return {"unlike": self._unlike.told, "sink": self._sink.state_dict(), "sent": self._sent.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._unlike.told = state["unlike"]
        self._sink.load_state_dict(state["sink"])
        self._sent.load_state_dict(state["sent"])

    def _collect(self, version: int, inbox: Sequence[Message]) -> tuple[Tensor, ...]:
        square, self._infinite = 0.0, None
        for message, layout in zip(inbox, self._layouts, strict=True):
            told = MeanReport.read(message.tensors[0], len(self._weights))
            for weight, one in zip(self._weights, told.squares, strict=True):
                square += weight * one  # one by one, as whoever has all replicas adds them up
            self._unlike.tell([name for (name, _), unlike in zip(layout.counters, told.unlike, strict=True) if unlike])
            if self._infinite is None and told.infinite is not None:
                self._infinite = layout.entries[told.infinite].name
        distance = math.sqrt(square / sum(self._weights))
        self._record = {"version": version, "epoch": self._epochs(version), "consensus_distance": distance}
        self._record |= self._sent.until(version)
        if not self._tested:
            self._hand_over(self._record, self._model, self._infinite)
        return ()

    def _evaluate(self, index: int, inbox: Sequence[Message]) -> None:
        values: list[float] = inbox[0].tensors[0].tolist()
        pairs = zip(self._metrics, values[SUMS:], strict=True)
        found = {PREFIX + name: None if math.isnan(value) else value for name, value in pairs}
        self._record |= measured(values[:SUMS], found)
        self._hand_over(self._record, self._model, self._infinite)
