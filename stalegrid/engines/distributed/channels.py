"""One ordered channel from each process to each other, over torch.distributed's isend and irecv; edges share it.

Does not know: what messages mean, who will step on their arrival.

A channel has a thread at either end, so that packing, sending and receiving happen behind the computation; both release
Python's lock while they copy or wait.  Something must wait, since Gloo's futures cannot be polled.  Deadlines are the
host's: a channel may rightly be silent for long, but an agent that waits knows for what.

Messages travel as frames (see :mod:`stalegrid.engines.distributed.wire`) in the order in which their senders made them.
The receiving end keeps AHEAD receives posted, so a frame moves as soon as it is there; it takes whatever comes, at
once, into a queue without a limit.  So no message ever waits for an agent, many edges in one channel are the unbounded
first-in first-out edges of the program, and what does not deadlock in the program does not deadlock here.  A queue
holds what the staleness lets senders be ahead.

With P processes at the other ends and no message between them of more than L bytes, a process has at most 2 P threads
here, and P (AHEAD + RING) min(FRAME, 64 + L) bytes of frames, whatever the number of edges.

After its last message a process sends AHEAD empty frames, for the receives that are posted then: one that is left would
abort its process when that leaves the process group, or take what a later run sends.  A process ends when it has sent
and received these, so nobody sends to one that is gone, which may hang in Gloo, or loses what it had sent.

A process that ends with an error sends AHEAD frames too, which say that more could have come.  The last of them leaves
when all that came before has been taken: a receive that is posted to a process that is gone breaks the channel, and
what has arrived and is not taken is lost.

Not batch_isend_irecv, which is known to hang on Gloo.
"""

from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from threading import Thread
from time import monotonic

import torch
import torch.distributed as dist
from torch import Tensor

from stalegrid.engines.distributed.wire import FRAME, HEAD, Head, Wire, framed
from stalegrid.engines.recording import now
from stalegrid.errors import ProtocolError
from stalegrid.observe import Recorder
from stalegrid.programs import Edge, Message, Tag

AHEAD = 8
"""Receives that are posted: with these frames under way, only a network that holds more waits for the receiver."""

RING = 2
"""Frames of a sender: one is filled while another one leaves."""

TAG = 0
"""Of all frames."""

_OVER = Head(-1)
"""The head of the frames after the last message."""

_CUT = Head(-2)
"""Likewise, where an error has ended what would have come."""

# A wait without a limit would have that of its process group.
_NEVER = timedelta(days=365)


@dataclass(frozen=True)
class Lane:
    """One edge in a channel.

    Args:
        edge: which edge.
        wire: of its messages.
        direct: whether content travels from GPU to GPU, as a whole, and not through the host's memory.
    """

    edge: Edge
    wire: Wire
    direct: bool = False


@dataclass(frozen=True)
class Link:
    """Where the other end of a channel is.

    Args:
        peer: rank of the process there.
        lanes: the edges, by their numbers in the program.
        device: of this end's tensors.
        group: process group for content from GPU to GPU; None where there is none.
    """

    peer: int
    lanes: Mapping[int, Lane]
    device: torch.device
    group: dist.ProcessGroup | None = None

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Return the edges."""
        return tuple(lane.edge for lane in self.lanes.values())

    @property
    def nbytes(self) -> int:
        """Return the bytes of a frame."""
        return min(FRAME, max(HEAD if lane.direct else lane.wire.nbytes for lane in self.lanes.values()))

    def frame(self) -> Tensor:
        """Allocate a frame in the host's memory."""
        return torch.empty(self.nbytes, dtype=torch.uint8, pin_memory=self.device.type == "cuda")


@dataclass(frozen=True)
class Broken:
    """A channel failed.

    Args:
        edges: in it.
        tag: of the message that was being sent; None where nobody knows.
        reason: what was raised.
    """

    edges: tuple[Edge, ...]
    tag: Tag | None
    reason: Exception


Arrivals = SimpleQueue[Message | Broken | None]
"""What has come; None for a part of a message, which shows that its sender lives."""


class Outgoing:
    """The sending end of channels whose messages leave one after another; never makes its caller wait.

    Args:
        links: where to.
        arrivals: where a failure is told.
        recorder: who notes departures; None for nobody.
    """

    def __init__(self, links: Collection[Link], arrivals: Arrivals, recorder: Recorder | None = None) -> None:
        self.links = links
        self._ends = {edge: (link, n) for link in links for n, edge in zip(link.lanes, link.edges, strict=True)}
        self._device = next(iter(links)).device
        self._arrivals = arrivals
        self._recorder = recorder
        self._leaving: tuple[Tag | None, Link, float] | None = None  # what is under way, and where to, since when
        self._queue: SimpleQueue[tuple[Message, torch.cuda.Event | None] | bool] = SimpleQueue()
        # A daemon: a send to a process that hangs must not keep this one alive.
        name = f"send to {', '.join(str(link.peer) for link in links)}"
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Take a message to send; its tensors must not change any more."""
        if self._recorder is not None:
            self._recorder.left(message.tag, now())
        made = None
        if self._device.type == "cuda":
            made = torch.cuda.Event()  # type: ignore[no-untyped-call]
            made.record()
        self._queue.put((message, made))

    def stuck(self, seconds: float) -> tuple[Tag | None, Link] | None:
        """Return the message whose frame has been under way for longer than that, and where to.

        None if there is no such frame; no message, if it is one of the last frames.

        Whoever is alive takes frames as they come, however slow its computation is: its channels have threads of
        their own.
        """
        leaving = self._leaving
        return None if leaving is None or monotonic() <= leaving[2] + seconds else leaving[:2]

    def close(self, *, over: bool) -> None:
        """Send what is left and stop, behind the caller's back.

        Args:
            over: whether all is well, so that the other ends need not miss this process when it is gone.  Where it is
                not, they have taken all messages when this has stopped.
        """
        self._queue.put(over)

    def joined(self, seconds: float) -> bool:
        """Wait until it has stopped; return whether it has in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        rings: dict[int, _Ring] = {}
        lost: set[int] = set()
        with _side_stream(self._device):
            while not isinstance(item := self._queue.get(), bool):
                message, made = item
                link, number = self._ends[message.tag.edge]
                if link.peer in lost:
                    continue
                try:
                    if made is not None:
                        # The tensors may not be computed yet: this stream waits for the one that makes them.
                        torch.cuda.current_stream().wait_event(made)
                    if link.peer not in rings:
                        rings[link.peer] = _Ring(link)
                    self._send(link, number, message, rings[link.peer])
                except Exception as reason:  # told to the host, which ends the run or goes on without the other end
                    lost.add(link.peer)
                    self._arrivals.put(Broken(link.edges, message.tag, reason))
                self._leaving = None
        for link in self.links:
            if link.peer not in lost:
                self._leave(link, _OVER if item else _CUT)

    def _send(self, link: Link, number: int, message: Message, ring: "_Ring") -> None:
        lane, tag = link.lanes[number], message.tag
        # One assignment, which another thread reads without a lock.
        self._leaving = tag, link, monotonic()
        pieces = lane.wire.pack(message, number)
        for frame in framed([next(pieces)] if lane.direct else pieces, ring.free):
            ring.send(frame)
            self._leaving = tag, link, monotonic()
        if lane.direct and (content := [piece.to(link.device) for piece in pieces if len(piece)]):
            whole = torch.cat(content)
            _wait(dist.isend(whole, link.peer, group=link.group))
            # NCCL's wait holds up the stream and not this thread; the content is free once the stream has come so far.
            _settle(link.device)
        ring.sent()

    def _leave(self, link: Link, last: Head) -> None:
        self._leaving = None, link, monotonic()
        frame = last.written()
        with suppress(RuntimeError):  # whoever is gone had all that was for it
            for work in [dist.isend(frame, link.peer, tag=TAG) for _ in range(AHEAD)]:
                _wait(work)
        self._leaving = None


class _Ring:
    """Frames that are filled and sent in turn.

    Args:
        link: where to.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free = [link.frame() for _ in range(RING)]
        self._leaving: deque[tuple[Tensor, dist.Work | None]] = deque()

    def free(self) -> Tensor:
        """Return a frame that may be written, once one has left."""
        if not self._free:
            frame, work = self._leaving.popleft()
            _wait(work)
            self._free.append(frame)
        self._filled = self._free.pop()
        return self._filled

    def send(self, part: Tensor) -> None:
        """Send the frame that was free last, as far as it is filled."""
        _settle(self._link.device)
        self._leaving.append((self._filled, dist.isend(part, self._link.peer, tag=TAG)))

    def sent(self) -> None:
        """Wait until all have left."""
        while self._leaving:
            frame, work = self._leaving.popleft()
            _wait(work)
            self._free.append(frame)


class Incoming:
    """The receiving end of a channel: hands over messages in the order in which they were sent.

    Args:
        link: where from.
        arrivals: where messages and failures go.
        recorder: who notes arrivals; None for nobody.
    """

    def __init__(self, link: Link, arrivals: Arrivals, recorder: Recorder | None = None) -> None:
        self.link = link
        self._arrivals = arrivals
        self._recorder = recorder
        self._posted: deque[tuple[Tensor, dist.Work | None]] = deque()
        self._thread = Thread(target=self._run, name=f"receive from {link.peer}", daemon=True)
        self._thread.start()

    def joined(self, seconds: float) -> bool:
        """Wait until the other end has sent all, or is gone; return whether it has in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with _side_stream(self.link.device):
                for _ in range(AHEAD):
                    self._post(self.link.frame())
                while (message := self._message()) is not None:
                    if self._recorder is not None:
                        self._recorder.arrived(message.tag, now())
                    self._arrivals.put(message)
                while self._posted:
                    self._taken()
        except Exception as reason:  # told to the host, which ends the run or goes on without the other end
            self._arrivals.put(Broken(self.link.edges, None, reason))

    def _message(self) -> Message | None:
        """Receive the next message; None after the last one."""
        link, frame = self.link, self._taken()
        while (head := Head.read(frame)) == _CUT:
            self._post(frame)  # the channel breaks when the other end is gone
            frame = self._taken()
        if head == _OVER:
            return None
        lane = link.lanes.get(head.edge)
        if lane is None:
            raise ProtocolError(f"process {link.peer} sent a message of no edge to here (number: {head.edge})")
        tag = Tag(lane.edge, head.number)
        # A buffer for each: the tensors of a message are views of it, and its receiver may keep them.
        content = torch.empty(lane.wire.content(tag, head), dtype=torch.uint8, device=link.device)
        if lane.direct:
            self._post(frame)
            self._receive(content)
        else:
            self._assemble(content, frame)
        return lane.wire.unpack(content, tag, head)

    def _assemble(self, content: Tensor, frame: Tensor) -> None:
        """Fill a buffer with what is behind the head in a frame, and with the next frames."""
        came = frame[HEAD:]
        while True:
            fits = min(len(came), len(content))
            content[:fits].copy_(came[:fits], non_blocking=True)
            content = content[fits:]
            _settle(self.link.device)
            self._post(frame)
            if not len(content):
                return
            self._arrivals.put(None)
            came = frame = self._taken()

    def _receive(self, content: Tensor) -> None:
        if len(content):
            _wait(dist.irecv(content, self.link.peer, group=self.link.group))
            _settle(self.link.device)

    def _post(self, frame: Tensor) -> None:
        self._posted.append((frame, dist.irecv(frame, self.link.peer, tag=TAG)))

    def _taken(self) -> Tensor:
        """Wait for the next frame."""
        frame, work = self._posted.popleft()
        _wait(work)
        return frame


def _wait(work: dist.Work | None) -> None:
    assert work is not None
    work.wait(_NEVER)


def _side_stream(device: torch.device) -> torch.cuda.StreamContext:
    """Run a thread's GPU work beside the computation; on a CPU this does nothing."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    return torch.cuda.stream(stream)


def _settle(device: torch.device) -> None:
    """Wait until this thread's GPU work is done."""
    if device.type == "cuda":
        torch.cuda.current_stream().synchronize()
