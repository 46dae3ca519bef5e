"""Many edges share a channel: what arrives, and what it costs, which is counted and not timed."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from stalegrid.agents import Agent
from stalegrid.consensus.rounds import AllReduce
from stalegrid.engines.distributed import channels
from stalegrid.engines.distributed.channels import AHEAD, RING, Arrivals, Broken, Incoming, Lane, Link, Outgoing
from stalegrid.engines.distributed.host import _in_turn, _receive, run
from stalegrid.engines.distributed.wire import FRAME, HEAD, Head, Wire
from stalegrid.engines.distributed.world import World, homes
from stalegrid.engines.network import Network
from stalegrid.errors import DeadlineExceeded
from stalegrid.programs import END, Action, Agenda, Edge, Grid, Layout, Message, Program, Tag, Unit, flat_layout, stale
from tests.engines.distributed.forked import together

CPU = torch.device("cpu")
SECONDS = 30.0


def edge_of(number: int) -> Edge:
    return Edge("activation", Unit(number, 0), Unit(number, 1))


def link_to(peer: int, *sizes: int, direct: bool = False, group: dist.ProcessGroup | None = None) -> Link:
    """Return a channel of edges whose messages are so many numbers each."""
    lanes = {n: Lane(edge_of(n), Wire(flat_layout(size, torch.int64)), direct) for n, size in enumerate(sizes)}
    return Link(peer, lanes, CPU, group)


def content(edge: int, index: int, size: int) -> Tensor:
    return torch.arange(size) * 7 + edge * 1000 + index


def sent(link: Link, order: Sequence[tuple[int, int]], sizes: Sequence[int]) -> None:
    """Send messages (edge, index) and end well."""
    sender = Outgoing([link], Arrivals())
    for edge, index in order:
        sender.send(Message(Tag(edge_of(edge), index), index, (content(edge, index, sizes[edge]),)))
    sender.close(over=True)
    assert sender.joined(SECONDS)


def received(link: Link, number: int) -> tuple[list[Message], int]:
    """Receive so many messages; return them, and how many parts of them came before."""
    arrivals = Arrivals()
    receiver = Incoming(link, arrivals)
    found: list[Message] = []
    parts = 0
    while len(found) < number:
        arrived = arrivals.get(timeout=SECONDS)
        assert not isinstance(arrived, Broken), arrived
        if arrived is None:
            parts += 1
        else:
            found.append(arrived)
    assert receiver.joined(SECONDS)
    assert arrivals.empty()
    return found, parts


SIZES = (0, 1, FRAME // 8 - 8, FRAME // 8, 3 * FRAME // 8)
"""Numbers of a message: none, one, a frame with its head exactly, and what takes two and four."""


@pytest.mark.parametrize("direct", [False, True])
def test_messages_of_many_edges_arrive_whole_in_the_order_in_which_they_were_sent(direct: bool, tmp_path: Path) -> None:
    order = [(edge, index) for index in range(3 * AHEAD) for edge in range(len(SIZES)) if index % (edge + 1) == 0]

    def act(rank: int) -> str:
        # A group of Gloo in the place of one from GPU to GPU, in which content goes as a whole.
        link = link_to(1 - rank, *SIZES, direct=direct, group=dist.new_group([0, 1]) if direct else None)
        if rank == 0:
            sent(link, order, SIZES)
            return "sent"
        messages, parts = received(link, len(order))
        assert [(m.tag.edge.source.group, m.tag.index) for m in messages] == order
        for message, (edge, index) in zip(messages, order, strict=True):
            assert message.version == index
            assert torch.equal(message.tensors[0], content(edge, index, SIZES[edge]))
        frames = {3: 1, 4: 3}  # behind the first
        assert parts == (0 if direct else sum(frames.get(edge, 0) for edge, _ in order))
        return "received"

    assert together(tmp_path, 2, act) == ["sent", "received"]


def test_a_channel_that_has_ended_can_be_followed_by_another_one(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        for turn in range(3):
            if rank == 0:
                sent(link_to(1, 5), [(0, turn)], [5])
            else:
                (message,), _ = received(link_to(0, 5), 1)
                assert message.tag.index == turn
        dist.destroy_process_group()  # with a receive that is left it would not return
        return "done"

    assert together(tmp_path, 2, act) == ["done", "done"]


def test_the_last_message_of_an_edge_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        if rank == 0:
            sender = Outgoing([link_to(1, 5, 5)], Arrivals())
            sender.send(Message(Tag(edge_of(0), END), 9, ()))
            sender.send(Message(Tag(edge_of(1), 4), 4, (content(1, 4, 5),)))
            sender.close(over=True)
            return str(sender.joined(SECONDS))
        (last, other), _ = received(link_to(0, 5, 5), 2)
        assert last == Message(Tag(edge_of(0), END), 9, ())
        assert other.tag == Tag(edge_of(1), 4)
        return "True"

    assert together(tmp_path, 2, act) == ["True", "True"]


def test_a_process_that_is_gone_breaks_its_channel_unless_it_has_said_that_it_ends(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        if rank != 1:
            sender = Outgoing([link_to(1, 5)], Arrivals())
            sender.send(Message(Tag(edge_of(0), 0), 0, (content(0, 0, 5),)))
            sender.close(over=rank == 0)
            return str(sender.joined(SECONDS))
        _, _ = received(link_to(0, 5), 1)
        arrivals = Arrivals()
        Incoming(link_to(2, 5), arrivals)
        assert isinstance(arrivals.get(timeout=SECONDS), Message)
        broken = arrivals.get(timeout=SECONDS)
        assert isinstance(broken, Broken)
        return str((broken.edges == (edge_of(0),), broken.tag))

    assert together(tmp_path, 3, act) == ["True", "(True, None)", "True"]


def test_a_process_that_ends_with_an_error_waits_until_its_messages_are_taken(tmp_path: Path) -> None:
    class Held(Incoming):
        """Has room for AHEAD - 1 frames, and posts none that it has taken again until it may."""

        def _post(self, frame: Tensor) -> None:
            while len(self._posted) == AHEAD - 1 and not (tmp_path / "go").exists():
                time.sleep(0.01)
            super()._post(frame)

    def act(rank: int) -> str:
        arrivals = Arrivals()
        if rank == 1:
            Held(link_to(0, 5), arrivals)
            came = [arrivals.get(timeout=SECONDS) for _ in range(AHEAD - 1)]
            return str([isinstance(message, Message) for message in came] == [True] * (AHEAD - 1))
        sender = Outgoing([link_to(1, 5)], arrivals)
        for index in range(AHEAD - 1):
            sender.send(Message(Tag(edge_of(0), index), index, (content(0, index, 5),)))
        sender.close(over=False)
        early = sender.joined(0.5)
        (tmp_path / "go").touch()
        return str((early, sender.joined(SECONDS)))

    assert together(tmp_path, 2, act) == ["(False, True)", "True"]


def test_who_sends_to_several_in_turn_goes_on_when_one_of_them_is_gone(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        if rank == 1:
            return "gone"
        if rank == 2:
            messages, _ = received(Link(0, {1: Lane(edge_of(1), Wire(flat_layout(5, torch.int64)))}, CPU), 50)
            return str(len(messages))
        arrivals = Arrivals()
        wire = Wire(flat_layout(5, torch.int64))
        links = [Link(peer, {n: Lane(edge_of(n), wire)}, CPU) for n, peer in enumerate((1, 2))]
        sender = Outgoing(links, arrivals)
        for index in range(50):
            for n in range(2):
                sender.send(Message(Tag(edge_of(n), index), index, (content(n, index, 5),)))
        sender.close(over=True)
        broken = arrivals.get(timeout=SECONDS)
        assert isinstance(broken, Broken)
        assert broken.tag is not None
        assert arrivals.empty()
        return str((sender.joined(SECONDS), broken.edges == (edge_of(0),), broken.tag.edge == edge_of(0)))

    assert together(tmp_path, 3, act) == ["(True, True, True)", "gone", "50"]


def test_a_message_that_is_not_taken_is_known(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        if rank == 1:
            while not (tmp_path / "known").exists():
                pass
            return "never took it"
        sender = Outgoing([link_to(1, 5)], Arrivals())
        assert sender.stuck(0) is None
        sender.send(Message(Tag(edge_of(0), 3), 3, (content(0, 3, 5),)))
        while (found := sender.stuck(0)) is None:
            pass
        (tmp_path / "known").touch()
        return str((found[0], found[1].peer) == (Tag(edge_of(0), 3), 1))

    assert together(tmp_path, 2, act) == ["True", "never took it"]


def test_a_message_of_an_edge_that_does_not_lead_here_is_refused(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        if rank == 0:
            dist.isend(Head(5, 0, 0, 0).written(), 1, tag=channels.TAG).wait()
            return "sent"
        arrivals = Arrivals()
        Incoming(link_to(0, 5), arrivals)
        broken = arrivals.get(timeout=SECONDS)
        assert isinstance(broken, Broken)
        return str(broken.reason)

    assert together(tmp_path, 2, act) == ["sent", "process 0 sent a message of no edge to here (number: 5)"]


class Ports(Agenda):
    """A program in which messages of the same name leave one after another."""

    def port(self, edge: Edge) -> object:
        return edge.name


def test_channels_share_a_thread_only_where_messages_must_leave_one_after_another() -> None:
    def link(peer: int, *names: str) -> Link:
        return Link(
            peer, {n: Lane(Edge(name, Unit(0, 0), Unit(peer, n)), Wire(())) for n, name in enumerate(names)}, CPU
        )

    links = [link(1, "a"), link(2, "b", "c"), link(3, "d"), link(4, "a", "b"), link(5, "c")]
    assert [[one.peer for one in part] for part in _in_turn(Ports(), links)] == [[3], [1, 2, 4, 5]]
    assert [[one.peer for one in part] for part in _in_turn(Agenda(), links)] == [[1], [2], [3], [4], [5]]


def test_a_part_of_a_message_is_a_sign_of_life_and_nothing_is_silence() -> None:
    program = Program(Grid(1, 2), stale([0, 0]), 1)
    network = Network(program, {Unit(0, 1): cast(Agent, Echo(1, int))})
    arrivals = Arrivals()
    arrivals.put(None)
    _receive(network, arrivals, 0.0)
    with pytest.raises(DeadlineExceeded, match=r"^unit \(0,0\) is silent: unit \(0,1\) waits for activation of batch"):
        _receive(network, arrivals, 0.0)


def test_what_was_sent_before_a_wait_ends_the_run_is_taken_though_its_receiver_is_slow(tmp_path: Path) -> None:
    program, begun = Program(Grid(1, 2), stale([5, 0]), 20), time.monotonic()

    class Slow(Incoming):
        """Posts no frame that it has taken again before the other end, which waits for less, could be gone."""

        def _post(self, frame: Tensor) -> None:
            if len(self._posted) == AHEAD - 1:
                time.sleep(max(0.0, begun + 2 - time.monotonic()))
            super()._post(frame)

    def act(rank: int) -> str:
        world = World(rank, homes(program, 2, spare=False), CPU, (("here", "cpu"),) * 2)
        if rank == 0:
            agents = {unit: cast(Agent, Echo(5, int)) for unit in world.here}
            with pytest.raises(DeadlineExceeded, match="waits for gradient"):
                run(program, agents, world, lambda _: (flat_layout(5, torch.int64),), 0.5)
            return "given up"
        (link,), _ = world.links(program, lambda _: (flat_layout(5, torch.int64),))
        arrivals, messages = Arrivals(), 0
        Slow(link, arrivals)
        while isinstance(arrivals.get(timeout=SECONDS), Message):
            messages += 1
        return str(messages)

    assert together(tmp_path, 2, act) == ["given up", "6"]


# What a process needs for its channels, whatever the number of its edges


class Echo:
    """An agent that sends what its actions say, and counts once."""

    def __init__(self, size: int, count: Any) -> None:
        self._size = size
        self._count = count

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        assert all(torch.equal(m.tensors[0], content(0, m.tag.index, self._size)) for m in inbox)
        self._count()
        return [Message(tag, tag.index, (content(0, tag.index, self._size),)) for tag in action.sends]


def costs(folder: Path, groups: int, processes: int, size: int) -> list[dict[str, int]]:
    """Run an all-reduce of all groups, which ties each to each other by two edges; return what each process needed."""

    def act(rank: int) -> str:
        threads: set[str] = set()
        buffers: dict[str, dict[int, int]] = defaultdict(dict)
        frame = Link.frame

        def count() -> None:
            threads.update(t.name for t in threading.enumerate() if t.name.startswith(("send to", "receive from")))

        def counted(link: Link) -> Tensor:
            made = frame(link)
            buffers["all"][made.data_ptr()] = made.nbytes
            return made

        Link.frame = counted  # type: ignore[method-assign]
        program = Program(Grid(groups, 1), stale([0]), 3, lateral=AllReduce(groups))
        world = World(rank, homes(program, processes, spare=False), CPU, (("here", "cpu"),) * processes)

        def layouts(edge: Edge) -> tuple[Layout, ...]:
            return (flat_layout(size, torch.int64),)

        agents = {unit: cast(Agent, Echo(size, count)) for unit in world.here}
        run(program, agents, world, layouts, SECONDS)
        edges = sum(len(link.lanes) for links in world.links(program, layouts) for link in links)
        return json.dumps({"edges": edges, "threads": len(threads), "bytes": sum(buffers["all"].values())})

    return [json.loads(said) for said in together(folder, processes, act)]


@pytest.mark.parametrize(
    ("groups", "processes", "size"), [(2, 2, 100), (16, 2, 100), (16, 2, FRAME // 4), (16, 4, 100), (8, 8, 100)]
)
def test_threads_and_bytes_are_those_of_the_closed_form(groups: int, processes: int, size: int, tmp_path: Path) -> None:
    peers, each = processes - 1, groups // processes
    frames = min(FRAME, HEAD + -(-8 * size // 64) * 64)
    for cost in costs(tmp_path, groups, processes, size):
        assert cost["edges"] == 2 * 2 * each * (groups - each)
        assert cost["threads"] == 2 * peers
        assert cost["bytes"] == peers * (AHEAD + RING) * frames
