import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.engines.network import Network, describe, stalled, waits_of
from stalegrid.errors import ProtocolError, TrainingError, Wait
from stalegrid.methods.choose import staleness_of
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.messages import Message
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale

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
    assert describe(waits_of(net.missing())) == (
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


Choice = Callable[[list[Unit]], Unit]


def most_waiting(schedule: Schedule, updates: int, choose: Choice) -> tuple[list[int], list[int]]:
    """Run a group in some order.

    Returns:
        By stage, the most activations that ever waited for it: ever, and since the stage below had a gradient.
    """
    program = Program(Grid(1, schedule.stages), schedule, updates)
    agents = {unit: Dummy() for unit in program.agents}
    net = Network(program, agents)
    sent, taken = [0] * schedule.stages, [0] * schedule.stages
    ever, later = [0] * schedule.stages, [0] * schedule.stages
    while not net.done:
        unit = choose(net.ready())
        for message in net.step(unit):
            net.deliver(message)
            if message.tag.edge.name == "activation":
                sent[message.tag.edge.target.stage] += 1
        if agents[unit].done[-1].startswith(Kind.FORWARD.value) and unit.stage:
            taken[unit.stage] += 1
        for k in range(1, schedule.stages):
            ever[k] = max(ever[k], sent[k] - taken[k])
            if "B0" in agents[Unit(0, k - 1)].done:
                later[k] = max(later[k], sent[k] - taken[k])
    return ever, later


def most_targets_waiting(schedule: Schedule, updates: int, choose: Choice) -> tuple[int, int]:
    """Run a group in some order.

    Returns:
        The most targets that ever waited for the last stage: ever, and since the first stage had a gradient.
    """
    program = Program(Grid(1, schedule.stages), schedule, updates, targets_travel=True)
    agents = {unit: Dummy() for unit in program.agents}
    net = Network(program, agents)
    first, last = agents[Unit(0, 0)], agents[Unit(0, schedule.stages - 1)]
    ever = later = waiting = 0
    while not net.done:
        unit = choose(net.ready())
        for message in net.step(unit):
            net.deliver(message)
            waiting += message.tag.edge.name == "target"
        waiting -= agents[unit] is last and last.done[-1].startswith(Kind.FORWARD.value)
        ever = max(ever, waiting)
        later = max(later, waiting if "B0" in first.done else 0)
    assert waiting == 0
    return ever, later


FALLING = st.lists(st.integers(0, 6), min_size=2, max_size=4).map(lambda m: sorted(m, reverse=True))


@settings(deadline=None, max_examples=60)
@given(staleness=FALLING, micro=st.integers(1, 3), draw=st.randoms(use_true_random=False))
def test_once_a_gradient_has_come_no_more_activations_wait_than_the_schedule_says(
    staleness: list[int], micro: int, draw: random.Random
) -> None:
    schedule = stale(staleness, micro)
    _, later = most_waiting(schedule, 8, draw.choice)
    assert all(later[k] <= schedule.queued(k) for k in range(schedule.stages))


@settings(deadline=None, max_examples=60)
@given(staleness=FALLING, micro=st.integers(1, 3))
def test_where_the_stages_below_go_first_as_many_wait_as_the_schedule_says(staleness: list[int], micro: int) -> None:
    schedule = stale(staleness, micro)
    _, later = most_waiting(schedule, 2 * max(staleness) + 2, lambda ready: ready[0])
    assert later == [schedule.queued(k) for k in range(schedule.stages)]


@settings(deadline=None, max_examples=60)
@given(staleness=FALLING, micro=st.integers(1, 3), draw=st.randoms(use_true_random=False))
def test_before_its_first_gradient_a_stage_sends_as_much_as_its_window(
    staleness: list[int], micro: int, draw: random.Random
) -> None:
    schedule = stale(staleness, micro)
    ever, _ = most_waiting(schedule, 2 * max(staleness) + 2, draw.choice)
    assert all(ever[k] <= schedule.in_flight(k - 1) for k in range(1, schedule.stages))
    attained, _ = most_waiting(schedule, 2 * max(staleness) + 2, lambda ready: ready[0])
    assert attained[1] == schedule.in_flight(0)


@settings(deadline=None, max_examples=60)
@given(stages=st.integers(2, 4), micro=st.integers(1, 5), draw=st.randoms(use_true_random=False), interleaved=...)
def test_with_a_flush_it_does_so_at_every_update(
    stages: int, micro: int, draw: random.Random, interleaved: bool
) -> None:
    schedule = one_f_one_b(stages, micro) if interleaved else gpipe(stages, micro)
    for choose in (draw.choice, lambda ready: ready[0]):
        ever, _ = most_waiting(schedule, 3, choose)
        assert all(ever[k] <= schedule.queued(k) for k in range(stages))
    assert ever == [schedule.queued(k) for k in range(stages)]


@settings(deadline=None, max_examples=60)
@given(staleness=FALLING, micro=st.integers(1, 3), draw=st.randoms(use_true_random=False))
def test_no_more_targets_wait_than_the_schedule_says(staleness: list[int], micro: int, draw: random.Random) -> None:
    schedule, updates = stale(staleness, micro), 2 * max(staleness) + 2
    ever, later = most_targets_waiting(schedule, updates, draw.choice)
    assert ever <= schedule.in_flight(0)
    assert later <= schedule.targets_queued
    attained = most_targets_waiting(schedule, updates, lambda ready: ready[0])
    assert attained == (schedule.in_flight(0), schedule.targets_queued)


@settings(deadline=None, max_examples=60)
@given(stages=st.integers(2, 4), micro=st.integers(1, 5), draw=st.randoms(use_true_random=False), interleaved=...)
def test_nor_with_a_flush(stages: int, micro: int, draw: random.Random, interleaved: bool) -> None:
    schedule = one_f_one_b(stages, micro) if interleaved else gpipe(stages, micro)
    assert most_targets_waiting(schedule, 3, draw.choice)[0] <= schedule.targets_queued
    assert most_targets_waiting(schedule, 3, lambda ready: ready[0])[0] == schedule.targets_queued


@pytest.mark.parametrize("queues", [[1, 1, 0], [0, 0, 0], [3, 0, 2, 1]])
def test_besides_what_a_queue_holds_one_activation_is_about_to_be_taken_and_one_was_just_sent(
    queues: list[int],
) -> None:
    schedule = stale(staleness_of(queues))
    _, later = most_waiting(schedule, 20, lambda ready: ready[0])
    assert later[1:] == [capacity + 2 for capacity in queues[:-1]]


def test_who_is_silent_is_who_is_waited_for_and_does_not_wait() -> None:
    waits = [Wait("(0,0)", "gradient of batch or update 3", "(0,1)"), Wait("(0,1)", "activation of ...", "(0,2)")]
    assert stalled(waits).startswith(
        "unit (0,2) is silent: unit (0,0) waits for gradient of batch or update 3 from (0,1); "
    )
    assert stalled([Wait("(0,0)", "report to be taken", "observer")]).startswith("the observer is silent: ")
    assert stalled([*waits, Wait("(0,2)", "gradient of ...", "(0,0)")]).startswith("nobody is silent: ")
