"""Places for observations that are made of other places: with dates, dispensable, or several at once.

Does not know: what the others do, agents, engines.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from torch import Tensor, nn

from stalegrid.objects import State
from stalegrid.observe.records import VIRTUAL, Nowhere, Record, Sink
from stalegrid.programs import Unit


class Dated:
    """Adds the time on a clock to every observation.

    Args:
        sink: where they go.
        seconds: reads the clock.
    """

    def __init__(self, sink: Sink, seconds: Callable[[], float]) -> None:
        self._sink = sink
        self._seconds = seconds

    def report(self, record: Record) -> None:
        """Pass it on with its date."""
        self._sink.report({**record, VIRTUAL: self._seconds()})

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Pass it on with its date."""
        self._sink.evaluation({**record, VIRTUAL: self._seconds()}, model)

    def diagnosis(self, record: Record) -> None:
        """Pass it on with its date."""
        self._sink.diagnosis({**record, VIRTUAL: self._seconds()})

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Pass it on."""
        self._sink.units(vectors)

    def stops(self) -> bool:
        """Pass on whether somebody asks for the end."""
        return self._sink.stops()

    def state_dict(self) -> State:
        """Return that of the sink."""
        return self._sink.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Pass it on."""
        self._sink.load_state_dict(state)

    def finish(self) -> None:
        """Pass it on."""
        self._sink.finish()

    def close(self) -> None:
        """Pass it on."""
        self._sink.close()


class Dispensable:
    """A place that training can do without: its first error is told, and it is left out from then on.

    Args:
        name: of the place.
        make: makes it.
        say: takes what is told.
    """

    def __init__(self, name: str, make: Callable[[], Sink], say: Callable[[str], object]) -> None:
        self._name = name
        self._say = say
        self._sink: Sink = Nowhere()
        self._try(lambda: setattr(self, "_sink", make()))

    def report(self, record: Record) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.report(record))

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.evaluation(record, model))

    def diagnosis(self, record: Record) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.diagnosis(record))

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.units(vectors))

    def stops(self) -> bool:
        """Return that nobody asks for the end: what may be left out decides nothing."""
        return False

    def state_dict(self) -> State:
        """Return that there is nothing to know: what may be left out begins anew."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.finish())

    def close(self) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.close())

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as problem:  # whatever it is, training is worth more
            self._sink = Nowhere()
            self._say(f"training goes on without {self._name}: {type(problem).__name__}: {problem}")


class Several:
    """Hands every observation to several sinks, in order.

    Args:
        sinks: which.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def report(self, record: Record) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.report(record)

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.evaluation(record, model)

    def diagnosis(self, record: Record) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.diagnosis(record)

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.units(vectors)

    def stops(self) -> bool:
        """Return whether somebody asks for the end."""
        return any(sink.stops() for sink in self._sinks)

    def state_dict(self) -> State:
        """Return those of all sinks, by their kinds: a run may go on with a display and have had none."""
        return {type(sink).__name__: sink.state_dict() for sink in self._sinks}

    def load_state_dict(self, state: State) -> None:
        """Pass each its own, if there is one."""
        for sink in self._sinks:
            if (own := state.get(type(sink).__name__)) is not None:
                sink.load_state_dict(own)

    def finish(self) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.finish()

    def close(self) -> None:
        """Close them all, whichever of them fails."""
        with ExitStack() as closing:
            # Backwards, as the stack closes first what was put on it last.
            for sink in reversed(self._sinks):
                closing.callback(sink.close)
