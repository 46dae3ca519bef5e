"""The entry of the warm process, ``python -P __main__.py``, whose standard input is its line to the starter.

Does not know: what workers do.

Modules are looked for where the starter looked for them, in that order, and nowhere else; so the starter's path is set
before anything of this library, or of torch, is loaded.
"""

import gc
import json
import socket
import sys


def _start() -> None:
    gc.disable()  # while libraries load there is no garbage, and looking for it takes a quarter of the time
    line = socket.socket(fileno=0)
    size = int.from_bytes(line.recv(4, socket.MSG_WAITALL))
    sys.path[:] = json.loads(line.recv(size, socket.MSG_WAITALL) or "[]")
    try:
        import torch._dynamo  # noqa: F401 - as optimizers do when they are made

        from stalegrid.engines.distributed.forking import serve
    except Exception as problem:  # such as no memory left to load libraries into
        _refuse(line, f"a worker process cannot load what it needs: {type(problem).__name__}: {problem}")
        sys.exit(1)
    serve(line)


def _refuse(line: socket.socket, why: str) -> None:
    """Tell who asks for workers why there are none."""
    _, files, _, _ = socket.recv_fds(line, 1, 8)
    if files:
        socket.socket(fileno=files[0]).sendall(json.dumps(["refused", why]).encode() + b"\n")


_start()
