"""How a job is written for worker processes: by value, but for what every process has or can read in a file.

Does not know: what a job consists of, where it is read.

The global generators of Python, NumPy and torch are written by name, and so are functions that draw from them: a copy
would draw too, and nobody would key it.  Operators of torch cannot be written otherwise.

Memory that tensors share is written once and shared again.  Torch makes a new wrapper of it for each tensor that is
written, which for pickle is another object: a list of samples cut out of one tensor would hold that as often as there
are samples.
"""

import random
from operator import attrgetter
from typing import IO, Any

import cloudpickle
import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from stalegrid.engines.distributed.mapped import by_path


class Packer(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes functions of the user's script by value, global generators and operators of torch by name.

    Args:
        file: to which it writes.
        beside: what writes another part of the same, with which this one has memory and globals of functions in common.
    """

    globals_ref: dict[int, Any]
    """Cloudpickle's: what functions of one module have for its globals."""

    def __init__(self, file: IO[bytes], beside: "Packer | None" = None) -> None:
        super().__init__(file)
        self._memory: dict[int, torch.storage.TypedStorage] = {} if beside is None else beside._memory
        if beside is not None:
            self.globals_ref = beside.globals_ref

    def reducer_override(self, obj: Any) -> Any:
        """Write an object by its name where it has one in every process; see :class:`pickle.Pickler`."""
        if isinstance(obj, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
            return _named, (torch, f"ops.{obj}")
        if obj is torch.default_generator:
            return _named, (torch, "default_generator")
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            return _module, (type(obj), vars(obj))  # its own way of being pickled is to refuse
        for module in (random, np.random):
            # The hidden object whose methods the functions of the module are.
            generator = module.random.__self__
            if obj is generator:
                return _named, (module, "random.__self__")
            if getattr(obj, "__self__", None) is generator and getattr(module, obj.__name__, None) == obj:
                return _named, (module, obj.__name__)
        if isinstance(obj, torch.storage.TypedStorage):
            first = self._first_of(obj)
            if first is not obj:
                return _again, (first, obj.dtype)
        return by_path(obj) or super().reducer_override(obj)

    def _first_of(self, wrapper: torch.storage.TypedStorage) -> torch.storage.TypedStorage:
        """Return the wrapper of its memory that was written first."""
        return self._memory.setdefault(wrapper._untyped_storage._cdata, wrapper)


def _again(first: torch.storage.TypedStorage, dtype: torch.dtype) -> torch.storage.TypedStorage:
    memory = first._untyped_storage
    return torch.storage.TypedStorage(wrap_storage=memory, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]


def _module(kind: type[nn.Module], content: dict[str, Any]) -> nn.Module:
    made = kind.__new__(kind)
    vars(made).update(content)
    return made


def _named(place: Any, name: str) -> Any:
    return attrgetter(name)(place)
