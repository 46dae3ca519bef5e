"""What processes tell each other before and after a run: bytes of a size that is checked, each wait with a deadline.

Does not know: what is told, who is trusted.

Nothing that arrives is ever unpickled.  A process that is at work says so again and again, so that a slow one is told
from one that hangs: it is silence, not slowness, that ends a wait, and the error names who was silent.

On the wire, from one process to another, are heads of two numbers: what follows, and its bytes.  Content comes in
pieces, each of which shows that its sender lives.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from stalegrid import errors
from stalegrid.data import bytes_of
from stalegrid.errors import DeadlineExceeded, EngineError, PeerLost, ProtocolError, StalegridError
from stalegrid.observe import tell

T = TypeVar("T")

TAG = 1 << 20
"""Of these messages; those of edges are smaller."""

AROUND = TAG + 1
"""Of those around a work within which processes talk too: on one tag, a sign of life would be taken for content."""

TEXT = 1 << 26
"""Bytes of a text at most, where nothing else is said."""

LARGE = 1 << 36
"""Bytes at most of what a process noted in a run, which grows with its length."""

_AT_WORK, _MADE, _FAILED = range(3)
# So small that each is through within the patience on a slow network too.
_PIECE = 1 << 22  # bytes
_ERROR = 1 << 16  # bytes of an error's text at most
_BEATS = 4  # signs of life within the patience, at least
_OFTEN = 5.0  # seconds between two, at most
_NEVER = timedelta(days=365)
# An error travels as its name and text; of what classes it can be is known here, so nothing is unpickled.
_ERRORS = {
    name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, StalegridError)
}


@dataclass(frozen=True)
class _Heard:
    """What a thread has heard of a process: a sign of life, content or an error of its own, or that it is lost."""

    rank: int
    kind: int = _AT_WORK
    content: bytes = b""
    lost: Exception | None = None


def gather(make: Callable[[], bytes], patience: float, limit: int = TEXT) -> list[bytes]:
    """Make something in every process and return in each what all made, in the order of ranks.

    Args:
        make: called once in every process; may take its time.
        patience: seconds after which a process that gives no sign of life is an error.
        limit: bytes of what a process makes at most.

    Raises:
        StalegridError: what was raised in the first process that failed; in that one as it was.
        DeadlineExceeded: a process was silent.
        PeerLost: a process is gone.
    """
    return _exchange(make, range(dist.get_world_size()), patience, limit)


def spread(make: Callable[[], bytes], patience: float, limit: int = TEXT) -> bytes:
    """Make something in the first process and return it in all; see :func:`gather`."""
    (made,) = _exchange(make, [0], patience, limit)
    return made


def everybody(make: Callable[[], T], patience: float) -> T:
    """Make something in every process, for that process alone, and go on when all have; see :func:`gather`."""
    made: list[T] = []

    def note() -> bytes:
        made.append(make())
        return b""

    gather(note, patience, 0)
    return made[0]


def spread_tensors(tensors: Collection[Tensor], patience: float) -> None:
    """Give the tensors of the first process to all others, in place; see :func:`gather`.

    Args:
        tensors: of the same shapes and types everywhere.
        patience: seconds that the first process may be silent.
    """
    limit = sum(t.nbytes for t in tensors)
    made = spread(lambda: b"".join(map(bytes_of, tensors)), patience, limit)
    if dist.get_rank() == 0:
        return
    if len(made) != limit:
        raise ProtocolError(f"the first process sent tensors of another size (bytes: {len(made)}, due: {limit})")
    offset = 0
    with torch.no_grad():
        for tensor in tensors:
            part = bytearray(made[offset : offset + tensor.nbytes])
            offset += tensor.nbytes
            if part:
                tensor.copy_(torch.frombuffer(part, dtype=tensor.dtype).view(tensor.shape))


def collect(content: bytes, writer: int, patience: float, limit: int = LARGE) -> list[bytes]:
    """Give what every process has to one of them, and return it there; nowhere else.

    What a process that is gone has, or one that has too much, is left out, and that is printed.

    Args:
        content: of this process.
        writer: rank of the one that takes it.
        patience: seconds that it may be silent, since it may have much to do before.
        limit: bytes of what a process has at most.
    """
    if dist.get_rank() != writer:
        speaker = Speaker(patience, [writer])
        if len(content) > limit:
            speaker.say(
                _FAILED, _told(EngineError(f"it is too much to send (bytes: {len(content)}, at most: {limit})"))
            )
        else:
            speaker.say(_MADE, content)
        speaker.finish()
        return []
    parts = [content]
    for rank in _others():
        try:
            parts += _contents(_listen([rank], patience, limit))
        except StalegridError as problem:
            tell(f"stalegrid: what process {rank} noted is left out: {problem}", "stderr")
    return parts


def _others() -> list[int]:
    return [rank for rank in range(dist.get_world_size()) if rank != dist.get_rank()]


def spread_after(work: Callable[[], object], make: Callable[[], bytes], patience: float, limit: int = TEXT) -> bytes:
    """Work in every process, then return in all what the first one made of it.

    Whoever is done waits as long as the first one gives signs of life; an error of the work is raised at once, and in
    the process where it happened alone, since the others are at work.
    """
    speaker = Speaker(patience, _others(), AROUND) if dist.get_rank() == 0 else None
    try:
        work()
    except BaseException:
        if speaker is not None:
            speaker.stop()
        raise
    return _exchange(make, [0], patience, limit, AROUND, speaker)[0]


def _exchange(
    make: Callable[[], bytes],
    speakers: Collection[int],
    patience: float,
    limit: int,
    tag: int = TAG,
    speaker: "Speaker | None" = None,
) -> list[bytes]:
    me = dist.get_rank()
    if me not in speakers:
        return _contents(_listen(speakers, patience, limit, tag))
    speaker = speaker or Speaker(patience, _others(), tag)
    others = set(speakers) - {me}
    try:
        own = _Heard(me, _MADE, make())
    except Exception as error:  # raised below in all others
        speaker.say(_FAILED, _told(error))
        with suppress(EngineError):  # what the others made is taken all the same, so that nobody waits for this one
            _listen(others, patience, limit, tag)
            speaker.finish()
        raise
    except BaseException:  # interrupted: it says nothing more, and that it is gone shows by itself
        speaker.stop()
        raise
    speaker.say(own.kind, own.content)
    heard = _listen(others, patience, limit, tag)
    speaker.finish()
    return _contents({**heard, me: own})


def _contents(heard: Mapping[int, _Heard]) -> list[bytes]:
    for rank in sorted(heard):
        if heard[rank].kind == _FAILED:
            raise _raised(rank, heard[rank].content)
    return [heard[rank].content for rank in sorted(heard)]


class Speaker:
    """Tells other processes that this one is at work, and in the end what it made.

    Args:
        patience: seconds within which they want a sign of life.
        peers: their ranks.
        tag: of its messages.
    """

    def __init__(self, patience: float, peers: Collection[int], tag: int = TAG) -> None:
        self._patience = patience
        self._pause = min(patience / _BEATS, _OFTEN)
        self._done = Event()
        self._head = torch.tensor([_AT_WORK, 0])
        self._content = torch.empty(0, dtype=torch.uint8)
        self._stopped = False
        self._ended: SimpleQueue[int] = SimpleQueue()
        self._peers = peers
        self._tag = tag
        for peer in peers:
            Thread(target=self._run, args=(peer,), name=f"tell {peer}", daemon=True).start()

    def say(self, kind: int, content: bytes) -> None:
        """Say what was made, behind the caller's back."""
        self._head = torch.tensor([kind, len(content)])
        self._content = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else self._content
        self._done.set()

    def stop(self) -> None:
        """Say nothing any more."""
        self._stopped = True
        self._done.set()

    def finish(self) -> None:
        """Wait until all have taken what was said.

        Raises:
            DeadlineExceeded: one has not.
        """
        left = set(self._peers)
        while left:
            try:
                left.discard(self._ended.get(timeout=self._patience))
            except Empty:
                raise _silence(left, self._patience) from None

    def _run(self, peer: int) -> None:
        try:
            # The first sign waits too: whoever is quick says nothing but what it made.
            while not self._done.wait(self._pause):
                _send(torch.tensor([_AT_WORK, 0]), peer, self._tag)
            if not self._stopped:
                _send(self._head, peer, self._tag)
                for piece in _pieces(self._content):
                    _send(piece, peer, self._tag)
        except RuntimeError:
            pass  # who listens learns that this process, or the other, is gone
        self._ended.put(peer)


def _send(tensor: Tensor, peer: int, tag: int) -> None:
    work = dist.isend(tensor, peer, tag=tag)
    if work is not None:
        work.wait(_NEVER)


def _listen(ranks: Collection[int], patience: float, limit: int, tag: int = TAG) -> dict[int, _Heard]:
    """Return what some processes made, all of which must give signs of life until then."""
    said: SimpleQueue[_Heard] = SimpleQueue()
    for rank in ranks:
        Thread(target=_hear, args=(rank, limit, tag, said), name=f"hear {rank}", daemon=True).start()
    last = dict.fromkeys(ranks, monotonic())
    found: dict[int, _Heard] = {}
    while last:
        try:
            heard = said.get(timeout=max(0.0, min(last.values()) + patience - monotonic()))
        except Empty:
            raise _silence({rank for rank, when in last.items() if when + patience <= monotonic()}, patience) from None
        if heard.lost is not None:
            raise heard.lost if isinstance(heard.lost, StalegridError) else _gone(heard.rank, heard.lost)
        last[heard.rank] = monotonic()
        if heard.kind != _AT_WORK:
            found[heard.rank] = heard
            del last[heard.rank]
    return found


def _hear(rank: int, limit: int, tag: int, said: SimpleQueue[_Heard]) -> None:
    try:
        while True:
            kind, nbytes = _receive(torch.empty(2, dtype=torch.int64), rank, tag).tolist()
            if kind == _AT_WORK:
                said.put(_Heard(rank))
                continue
            # Before a buffer is made: whoever is at the other end chose the number.
            if kind not in (_MADE, _FAILED) or not 0 <= nbytes <= (limit if kind == _MADE else _ERROR):
                raise ProtocolError(f"process {rank} announced what was not due (kind: {kind}, bytes: {nbytes})")
            content = torch.empty(nbytes, dtype=torch.uint8)
            for piece in _pieces(content):
                _receive(piece, rank, tag)
                said.put(_Heard(rank))
            said.put(_Heard(rank, kind, content.numpy().tobytes()))
            return
    except Exception as problem:  # told to who waits
        said.put(_Heard(rank, lost=problem))


def _pieces(content: Tensor) -> list[Tensor]:
    return [content[start : start + _PIECE] for start in range(0, len(content), _PIECE)]


def _receive(buffer: Tensor, rank: int, tag: int) -> Tensor:
    work = dist.irecv(buffer, rank, tag=tag)
    assert work is not None
    work.wait(_NEVER)
    return buffer


def _told(error: Exception) -> bytes:
    """Return an error as text; one of our own keeps its class."""
    own = type(error).__name__ if type(error).__name__ in _ERRORS else ""
    text = str(error) if own else f"{type(error).__name__}: {error}"
    return f"{own}\n{text}".encode(errors="replace")[:_ERROR]


def _raised(rank: int, content: bytes) -> StalegridError:
    name, _, text = content.decode(errors="replace").partition("\n")
    return _ERRORS[name](text) if name in _ERRORS else EngineError(f"process {rank} failed: {text}")


def _silence(ranks: Collection[int], patience: float) -> DeadlineExceeded:
    shown = ", ".join(map(str, sorted(ranks)))
    return DeadlineExceeded(
        f"process {shown} is silent: process {dist.get_rank()} has waited {patience:g} s for a sign of life"
    )


def _gone(rank: int, problem: Exception) -> PeerLost:
    return PeerLost(f"process {rank} is gone: process {dist.get_rank()} waits for it ({problem})")
