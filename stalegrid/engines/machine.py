"""The device and the threads of this process.

Does not know: other processes, what is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stalegrid.errors import ConfigError


def use_device(name: str, local_rank: int) -> torch.device:
    """Choose the device of this process, the CPU or a GPU in turn, and make its arithmetic repeatable.

    Args:
        name: cpu, cuda or auto.
        local_rank: number of the process on its host.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("CUDA was asked for but torch sees no GPU here (device: cuda); use --device cpu or auto")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    torch.backends.cudnn.deterministic = True
    return device


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with some number of threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
