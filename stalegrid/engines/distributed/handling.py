"""What it costs a processor to hand messages over to another process of this machine, measured.

Does not know: models, who talks to whom.

Gloo sends over TCP.  A sender packs a message into frames and writes those to a socket; a receiver reads each and
copies it to where the message is put together.  Where cores have nothing else to do that happens behind the
computation; where every core computes, it takes from it.  Here one thread sends to another in the same way, and the
processor time of both is counted.

The clock charges it to the unit itself; on hardware that moves bytes by itself it is 0.
"""

import socket
import time
from statistics import median
from threading import Thread

import torch

from stalegrid.engines.distributed.wire import FRAME, Wire, framed
from stalegrid.programs import Edge, Message, Tag, Unit, layout_of

MEGABYTES = 8
REPEATS = 9


def measure_handling() -> float:
    """Return milliseconds of processor time a MB, of the sender or of the receiver, which share the sum."""
    content = torch.zeros(MEGABYTES * 250_000)
    wire = Wire(layout_of([content]))
    message = Message(Tag(Edge("activation", Unit(0, 0), Unit(0, 1)), 0), 0, (content,))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            taken = [_once(wire, message, sender, receiver) for _ in range(REPEATS)]
    return median(taken) * 1000 / MEGABYTES / 2


def _once(wire: Wire, message: Message, sender: socket.socket, receiver: socket.socket) -> float:
    # Processor time of all threads, the receiving one's too; waiting is not counted.
    start = time.process_time()
    reader = Thread(target=_receive, args=(wire.nbytes, receiver))
    reader.start()
    frame = torch.empty(FRAME, dtype=torch.uint8)
    for part in framed(wire.pack(message, 0), lambda: frame):
        sender.sendall(part.numpy().data)
    reader.join()
    return time.process_time() - start


def _receive(nbytes: int, receiver: socket.socket) -> None:
    frame, message = torch.empty(FRAME, dtype=torch.uint8), torch.empty(nbytes, dtype=torch.uint8)
    for part in (message[start : start + FRAME] for start in range(0, nbytes, FRAME)):
        rest = frame[: len(part)].numpy().data
        while len(rest):
            rest = rest[receiver.recv_into(rest) :]
        part.copy_(frame[: len(part)])
