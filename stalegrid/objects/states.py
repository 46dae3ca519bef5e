"""A tree of plain values and tensors as strict JSON and named tensors, and back again, to the bit.

Does not know: whose state it is, files.

JSON alone would lose what is a tuple, which keys are numbers, and numbers that are infinite; so whatever is more than a
list, a text, a flag or a finite number is a record with one field, its kind.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from stalegrid.errors import DataError

State = dict[str, Any]
"""What something needs to go on from where it was: plain values, tensors, and containers of them."""

PLAIN = (type(None), bool, int, str)
_LISTS: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_MAPS: dict[str, Callable[[list[Any]], Any]] = {
    "dict": dict,
    "counter": lambda pairs: Counter(dict(pairs)),
    "ordered": OrderedDict,
}


def parted(tree: Any, device: torch.device | None = None) -> tuple[Any, dict[str, Tensor]]:
    """Part a tree into what JSON can hold, and copies of its tensors by name.

    Args:
        tree: nested lists, tuples, sets, deques, dictionaries, counters; in them numbers, texts, None and tensors.
        device: that whoever has it computes on, which its tensors follow when it goes on elsewhere; None for the CPU.

    Returns:
        The first for :func:`stalegrid.written.to_json`, the second on the CPU, dense; a tensor that is there twice is
        copied once.

    Raises:
        TypeError: something in it is of another kind.
    """
    tensors: dict[str, Tensor] = {}
    return _Parting(tensors, device).value(tree, ""), tensors


class _Parting:
    def __init__(self, tensors: dict[str, Tensor], device: torch.device | None) -> None:
        self._tensors = tensors
        self._home = device is None or device.type == "cpu"
        self._names: dict[int, str] = {}  # of tensors that were copied, by identity; the tree keeps them alive

    def value(self, tree: Any, path: str) -> Any:
        if type(tree) in PLAIN:
            return tree
        if isinstance(tree, Tensor):
            return self._tensor(tree, path)
        if isinstance(tree, float):
            return float(tree) if math.isfinite(tree) else {"float": str(float(tree))}
        if isinstance(tree, PLAIN):  # such as a member of an enumeration of numbers
            raise TypeError(f"{path or 'the state'} is {type(tree).__name__}, which would come back as another type")
        if type(tree) is list:
            return [self.value(entry, f"{path}.{i}") for i, entry in enumerate(tree)]
        return self._container(tree, path)

    def _container(self, tree: Any, path: str) -> Any:
        for name, make in _LISTS.items():
            if type(tree) is make:
                return {name: [self.value(entry, f"{path}.{i}") for i, entry in enumerate(tree)]}
        names: dict[Any, str] = {dict: "dict", Counter: "counter", OrderedDict: "ordered"}
        if (kind := names.get(type(tree))) is None:
            raise TypeError(f"{path or 'the state'} is of a kind that cannot be saved: {type(tree).__name__}")
        return {kind: [[self.value(k, f"{path}.key"), self.value(v, f"{path}.{k}")] for k, v in tree.items()]}

    def _tensor(self, tensor: Tensor, path: str) -> Any:
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise TypeError(f"{path or 'the state'} is a tensor that is not dense ({tensor.layout})")
        name = self._names.setdefault(id(tensor), f"{len(self._tensors)}{path}")
        if name not in self._tensors:
            self._tensors[name] = _dense(tensor)
        # As dense in memory as its own order of dimensions allows: a kernel may round by it.
        strides = torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format).stride()
        follows = {"follows": True} if self._follows(tensor) else {}
        return {"tensor": name, "strides": list(strides), **follows}

    def _follows(self, tensor: Tensor) -> bool:
        """Return whether a tensor goes where the rest is computed.

        A process with a GPU has some tensors on the CPU, and they stay there.  Of one without, it cannot be told which
        these are: single numbers are taken for them, since optimizers keep such there, and a GPU reads them too.
        """
        return tensor.dim() > 0 if self._home else tensor.device.type != "cpu"


def _dense(tensor: Tensor) -> Tensor:
    own = tensor.detach().resolve_conj().resolve_neg()
    # Copied also where it is on the CPU and contiguous already: training goes on while it is written.
    return own.to("cpu", copy=True, memory_format=torch.contiguous_format)


def joined(plain: Any, tensors: Mapping[str, Tensor], device: torch.device | None = None) -> Any:
    """Undo :func:`parted`.

    Args:
        plain: what JSON held.
        tensors: by name.
        device: for tensors that follow; None for the CPU.

    Raises:
        DataError: the one does not fit the other.
    """
    return _Joining(tensors, device).value(plain)


class _Joining:
    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device | None) -> None:
        self._tensors = tensors
        self._device = device
        self._made: dict[str, Tensor] = {}  # a tensor that was there twice is so again

    def value(self, plain: Any) -> Any:
        if isinstance(plain, list):
            return [self.value(entry) for entry in plain]
        if not isinstance(plain, dict):
            return plain
        try:
            return self._tensor(plain) if "tensor" in plain else self._container(plain)
        except (KeyError, ValueError, TypeError, RuntimeError) as problem:
            raise DataError(f"this is no saved state ({', '.join(map(str, plain))}): {problem}") from problem

    def _container(self, plain: dict[str, Any]) -> Any:
        ((kind, content),) = plain.items()
        if kind == "float":
            return float(content)
        if kind in _LISTS:
            return _LISTS[kind](self.value(content))
        return _MAPS[kind]([(self.value(key), self.value(value)) for key, value in content])

    def _tensor(self, plain: dict[str, Any]) -> Tensor:
        name = plain["tensor"]
        if name not in self._made:
            found = self._tensors[name]
            own = torch.empty_strided(found.shape, plain["strides"], dtype=found.dtype).copy_(found)
            self._made[name] = own.to(self._device) if plain.get("follows") and self._device is not None else own
        return self._made[name]
