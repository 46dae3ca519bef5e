from collections.abc import Sequence

import pytest

from stalegrid.engines.network import Network, describe
from stalegrid.errors import ProtocolError, TrainingError
from stalegrid.grid import Grid, Unit
from stalegrid.messages import Message
from stalegrid.program import Action, Edge, Program, Tag, stale

FIRST, LAST = Unit(0, 0), Unit(0, 1)
ACTIVATION, GRADIENT = Edge("activation", FIRST, LAST), Edge("gradient", LAST, FIRST)


class Dummy:
    """An agent that knows no tensors."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.inboxes: list[list[Message]] = []

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        self.done.append(str(action))
        self.inboxes.append(list(inbox))
        return [Message(tag, 0, ()) for tag in action.sends]


class Failing(Dummy):
    def __init__(self, problem: Exception) -> None:
        super().__init__()
        self.problem = problem

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        raise self.problem


PROGRAM = Program(Grid(1, 2), stale([1, 0]), 2)


def network(*units: Unit) -> tuple[Network, dict[Unit, Dummy]]:
    agents = {unit: Dummy() for unit in units or (FIRST, LAST)}
    return Network(PROGRAM, agents), agents


def test_an_agent_is_ready_when_its_messages_are_there() -> None:
    net, _ = network()
    assert net.ready() == [FIRST]
    (sent,) = net.step(FIRST)
    assert sent.tag == Tag(ACTIVATION, 0)
    assert net.ready() == [FIRST]
    net.deliver(sent)
    assert net.ready() == [FIRST, LAST]


def test_an_agent_gets_its_messages_in_the_order_they_were_sent() -> None:
    net, agents = network(LAST)
    messages = [Message(Tag(ACTIVATION, b), b, ()) for b in range(2)]
    for message in messages:
        net.deliver(message)
    while net.ready():
        net.step(LAST)
    assert net.done
    assert agents[LAST].done == ["F0", "B0", "U0", "F1", "B1", "U1"]
    assert agents[LAST].inboxes == [[messages[0]], [], [], [messages[1]], [], []]


def test_what_is_missing_is_known_and_can_be_said() -> None:
    net, _ = network()
    assert net.missing() == {LAST: [Tag(ACTIVATION, 0)]}
    net.step(FIRST)
    net.step(FIRST)
    assert net.ready() == []
    assert net.missing() == {FIRST: [Tag(GRADIENT, 0)], LAST: [Tag(ACTIVATION, 0)]}
    assert describe(net.missing()) == (
        "unit (0,0) waits for gradient of batch or update 0 from (0,1); "
        "unit (0,1) waits for activation of batch or update 0 from (0,0)"
    )


def test_an_agent_that_lives_elsewhere_is_not_stepped() -> None:
    net, _ = network(FIRST)
    assert net.ready() == [FIRST]
    assert list(net.missing()) == []


def test_a_network_is_done_when_every_agent_is() -> None:
    net, _ = network()
    while not net.done:
        for message in net.step(net.ready()[0]):
            net.deliver(message)
    assert net.ready() == []
    assert net.missing() == {}


def test_another_message_than_the_due_one_is_refused() -> None:
    net, _ = network(LAST)
    net.deliver(Message(Tag(ACTIVATION, 1), 0, ()))
    with pytest.raises(ProtocolError, match=r"needs activation .* #0 but was sent activation .* #1"):
        net.step(LAST)


def test_an_edge_that_nobody_here_reads_takes_no_message() -> None:
    net, _ = network(FIRST)
    with pytest.raises(KeyError):
        net.deliver(Message(Tag(ACTIVATION, 0), 0, ()))


def test_an_unexpected_error_gets_a_note_of_its_place() -> None:
    net = Network(PROGRAM, {FIRST: Failing(ZeroDivisionError("ouch"))})
    with pytest.raises(ZeroDivisionError, match="ouch") as caught:
        net.step(FIRST)
    assert caught.value.__notes__ == ["at unit (0,0), action F0"]


def test_an_error_of_this_library_says_its_place_itself() -> None:
    problem = TrainingError("ouch")
    with pytest.raises(TrainingError) as caught:
        Network(PROGRAM, {FIRST: Failing(problem)}).step(FIRST)
    assert caught.value is problem
    assert not hasattr(problem, "__notes__")
