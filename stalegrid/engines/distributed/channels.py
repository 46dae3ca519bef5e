"""One ordered channel a directed edge, over torch.distributed's isend and irecv.

Does not know: what messages mean, who will step on their arrival.

Each end is a thread, so that packing, sending and receiving happen behind the computation; both release Python's lock
while they copy or wait.  Something must wait, since Gloo's futures cannot be polled; and a thread that waits for each
send reuses its buffer without a protocol.  Receives are posted ahead, so a message moves as soon as its sender has it.
Deadlines are the host's: a channel may rightly be silent for long, but an agent that waits knows for what.

Not batch_isend_irecv, which is known to hang on Gloo.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from threading import Thread
from time import monotonic

import torch
import torch.distributed as dist
from torch import Tensor

from stalegrid.engines.distributed.wire import Wire
from stalegrid.engines.recording import now
from stalegrid.observe import Recorder
from stalegrid.programs import END, Edge, Message, Tag

AHEAD = 2
"""Receives posted before their messages are due."""

# A wait without a limit would have that of its process group.
_NEVER = timedelta(days=365)


@dataclass(frozen=True)
class Link:
    """Where the other end of an edge is.

    Args:
        edge: which edge.
        wire: of its messages.
        peer: rank of the process at the other end.
        group: process group of the edge; None for the default one.
        tag: tells edges between the same two processes apart; 0 in a group of its own.
        host_memory: whether bytes travel through the host's memory; False for from GPU to GPU.
        device: of this end's tensors.
    """

    edge: Edge
    wire: Wire
    peer: int
    group: dist.ProcessGroup | None
    tag: int
    host_memory: bool
    device: torch.device

    def buffer(self) -> Tensor:
        """Allocate a buffer for one message."""
        if self.host_memory:
            return torch.empty(self.wire.nbytes, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        return torch.empty(self.wire.nbytes, dtype=torch.uint8, device=self.device)


@dataclass(frozen=True)
class Broken:
    """A channel failed."""

    edge: Edge
    tag: Tag | None
    reason: Exception


Arrivals = SimpleQueue[Message | Broken]


class Outgoing:
    """The sending end of edges whose messages leave one after another; never makes its caller wait.

    Args:
        links: where to, by edge.
        arrivals: where a failure is told.
        recorder: who notes departures; None for nobody.
    """

    def __init__(self, links: Mapping[Edge, Link], arrivals: Arrivals, recorder: Recorder | None = None) -> None:
        self._links = links
        self._device = next(iter(links.values())).device
        self._arrivals = arrivals
        self._recorder = recorder
        self._leaving: tuple[Tag, float] | None = None  # the message that is under way, and since when
        self._queue: SimpleQueue[tuple[Message, torch.cuda.Event | None] | None] = SimpleQueue()
        # A daemon: a send to a process that hangs must not keep this one alive.
        self._thread = Thread(target=self._run, name=f"send {', '.join(map(str, links))}", daemon=True)
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

    def stuck(self, seconds: float) -> Tag | None:
        """Return the message that has been under way for longer than that, if there is one.

        Whoever is alive takes messages as they come, however slow its computation is: its channels have threads of
        their own.
        """
        leaving = self._leaving
        return leaving[0] if leaving is not None and monotonic() > leaving[1] + seconds else None

    def flush(self, seconds: float) -> bool:
        """Send what is left and stop; return whether that was done in time."""
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        edge, tag = next(iter(self._links)), None
        try:
            buffers = {edge: link.buffer() for edge, link in self._links.items()}
            with _side_stream(self._device):
                while (item := self._queue.get()) is not None:
                    message, made = item
                    tag = message.tag
                    edge = tag.edge
                    if made is not None:
                        # The tensors may not be computed yet: this stream waits for the one that makes them.
                        torch.cuda.current_stream().wait_event(made)
                    # One assignment, which another thread reads without a lock.
                    self._leaving = tag, monotonic()
                    self._send(self._links[edge], message, buffers[edge])
                    self._leaving = None
        except Exception as reason:  # told to the host, which ends the run or goes on without the other end
            self._leaving = None
            self._arrivals.put(Broken(edge, tag, reason))

    def _send(self, link: Link, message: Message, buffer: Tensor) -> None:
        link.wire.pack(message, buffer)
        _settle(link.device)
        work = dist.isend(buffer, link.peer, group=link.group, tag=link.tag)
        assert work is not None
        work.wait(_NEVER)
        # NCCL's wait holds up the stream and not this thread; the buffer is free once the stream has come so far.
        if not link.host_memory:
            _settle(link.device)


class Incoming:
    """The receiving end of an edge: posts receives ahead and hands over messages in order.

    Args:
        link: where from.
        due: the messages of this edge, from first to last, or without end where the last one says that it is.
        arrivals: where messages and failures go.
        recorder: who notes arrivals; None for nobody.
        ahead: receives posted before their messages are due; 1 where the number of messages is not known, so that none
            is left in the end.
    """

    def __init__(
        self,
        link: Link,
        due: Iterator[Tag],
        arrivals: Arrivals,
        recorder: Recorder | None = None,
        ahead: int = AHEAD,
    ) -> None:
        self._ahead = ahead
        self._link = link
        self._due = due
        self._arrivals = arrivals
        self._recorder = recorder
        self._thread = Thread(target=self._run, name=f"receive {link.edge}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        link, tag = self._link, None
        posted: deque[tuple[Tag, Tensor, dist.Work]] = deque()
        try:
            with _side_stream(link.device):
                while self._post(posted):
                    tag, buffer, work = posted.popleft()
                    work.wait(_NEVER)
                    message = link.wire.unpack(buffer, tag, link.device)
                    _settle(link.device)
                    if self._recorder is not None:
                        self._recorder.arrived(tag, now())
                    self._arrivals.put(message)
                    if message.tag.index == END:
                        return
        except Exception as reason:  # told to the host, which ends the run
            self._arrivals.put(Broken(link.edge, tag, reason))

    def _post(self, posted: deque[tuple[Tag, Tensor, dist.Work]]) -> bool:
        while len(posted) < self._ahead and (tag := next(self._due, None)) is not None:
            # A buffer for each: the tensors of a message are views of it, and its receiver may keep them.
            buffer = self._link.buffer()
            work = dist.irecv(buffer, self._link.peer, group=self._link.group, tag=self._link.tag)
            assert work is not None
            posted.append((tag, buffer, work))
        return bool(posted)


def _side_stream(device: torch.device) -> torch.cuda.StreamContext:
    """Run a thread's GPU work beside the computation; on a CPU this does nothing."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    return torch.cuda.stream(stream)


def _settle(device: torch.device) -> None:
    """Wait until this thread's GPU work is done."""
    if device.type == "cuda":
        torch.cuda.current_stream().synchronize()
