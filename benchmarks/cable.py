"""Long cables: ``cable MILLISECONDS END END ...`` makes two network devices for each cable, and joins them.

An END is NAMESPACE:DEVICE.  What enters one end leaves the other so much later, unchanged and in order; a cable has no
speed of its own.  That is what ``tc netem delay`` does where the kernel has it; this needs ``/dev/net/tun`` alone, and
is the same everywhere.  A line that is printed says that all are laid; they are there until the input is closed.

Does not know: what travels, what the ends are connected to.

Segments travel as large as the sender's kernel makes them, before the header in which virtual machines tell each other
how to cut them, so few system calls carry much.  Imports nothing that takes time, since everybody waits for it.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic

_TUN = "/dev/net/tun"
_SET_DEVICE, _SET_OFFLOAD = 0x400454CA, 0x400454D0  # as <linux/if_tun.h> has them: TUNSETIFF, TUNSETOFFLOAD
_ETHERNET = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
_UNCUT = 1 | 2 | 4  # TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6
_INPUT = 0  # its end ends this
_LARGEST = 1 << 17  # bytes of a segment, and more


def main(milliseconds: float, ends: Sequence[str]) -> None:
    """Lay cables between neighbouring ends, and carry until nobody needs them."""
    made = [_end(f"cable{i}", *end.split(":")) for i, end in enumerate(ends)]
    print("laid", flush=True)
    with suppress(PermissionError):  # a cable does not wait for processors
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    there = dict(zip(made[::2], made[1::2], strict=True))
    _carry(there | {b: a for a, b in there.items()}, milliseconds / 1000)


def _end(first_name: str, namespace: str, name: str) -> int:
    """Make a device, move it to a namespace, and return the file that reads what is sent by it."""
    file = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _SET_DEVICE, struct.pack("16sH22x", first_name.encode(), _ETHERNET))
    fcntl.ioctl(file, _SET_OFFLOAD, _UNCUT)
    subprocess.run(["ip", "link", "set", first_name, "netns", namespace, "name", name], check=True)
    return file


def _carry(other: Mapping[int, int], delay: float) -> None:
    """Write what is read, as late as a cable is long, until the input is closed."""
    under_way: deque[tuple[float, int, bytes]] = deque()  # one queue: all cables are equally long
    while True:
        pause = max(0.0, under_way[0][0] - monotonic()) if under_way else None
        readable, _, _ = select.select([_INPUT, *other], [], [], pause)
        if _INPUT in readable:
            return
        for end in readable:
            with suppress(BlockingIOError):  # all is read
                while True:
                    under_way.append((monotonic() + delay, other[end], os.read(end, _LARGEST)))
        while under_way and under_way[0][0] <= monotonic():
            _, end, frame = under_way.popleft()
            with suppress(OSError):  # a device that is down takes nothing, as one that is unplugged
                os.write(end, frame)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
