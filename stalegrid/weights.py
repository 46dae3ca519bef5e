"""The parameters of a stage in one vector, and the past versions of it that somebody still needs.

Does not know: batches, messages, optimizers, other stages, who needs a version and what for.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.messages import ALIGNMENT, aligned


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one parameter or floating buffer lies in the vector."""

    name: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, flat: Tensor) -> Tensor:
        """Return the tensor as a view of a vector of this layout."""
        return flat.as_strided(self.shape, self.stride, flat.storage_offset() + self.offset)


class Weights:
    """All parameters, then all floating buffers, of a module as views of one vector.

    A version copy, a mix or a message is then one operation.  Every tensor starts on a cache line; the padding
    between them stays 0.  Other buffers (such as BatchNorm's counter of batches) stay where they are.

    Args:
        module: its parameters and floating buffers are moved into the vector, in place.

    Attributes:
        flat: the vector, shape (numel,).
        entries: where each tensor lies, parameters first.
        trained: elements at the start of the vector that hold parameters; the rest are buffers.
        version: updates applied so far.

    Raises:
        ConfigError: floating parameters and buffers have different types or devices.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        parameters = dict(module.named_parameters())
        buffers = {n: b for n, b in module.named_buffers() if b.is_floating_point()}
        tensors = {**parameters, **buffers}
        kinds = {(t.dtype, t.device) for t in tensors.values()}
        if len(kinds) > 1:
            shown = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            raise ConfigError(
                f"all parameters and floating buffers of a stage must share one type and device ({shown})"
            )
        # Walking through the modules costs more than a small update; what they hold may not be replaced.
        self._parameters = list(parameters.values())
        self._counters = {n: b for n, b in module.named_buffers() if not b.is_floating_point()}
        self.entries, self.trained, numel = _place(parameters, buffers)
        dtype, device = kinds.pop() if kinds else (torch.float32, torch.device("cpu"))
        self.flat = torch.zeros(numel, dtype=dtype, device=device)
        self.version = 0
        for entry in self.entries:
            tensor, view = tensors[entry.name], entry.view(self.flat)
            view.copy_(tensor.detach())
            tensor.data = view

    def counters(self) -> dict[str, Tensor]:
        """Return the buffers that are not floating, such as BatchNorm's counter of batches."""
        return self._counters

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that an optimizer updates."""
        return [p for p in self._parameters if p.requires_grad]

    def counted(self) -> Tensor:
        """Return a copy of the buffers that are not floating, as one vector of int64."""
        counters = [b.flatten().to(torch.int64) for b in self.counters().values()]
        return torch.cat([torch.empty(0, dtype=torch.int64, device=self.flat.device), *counters])

    def places(self) -> list[tuple[Entry, nn.Parameter]]:
        """Return where each parameter lies."""
        parameters = dict(self.module.named_parameters())
        return [(entry, parameters[entry.name]) for entry in self.entries if entry.name in parameters]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self._parameters:
            p.grad = None

    def check(self) -> None:
        """Check that the module still computes with the vector.

        Raises:
            TrainingError: a parameter or buffer was replaced instead of changed in place.
        """
        tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        replaced = [e.name for e in self.entries if tensors[e.name].data_ptr() != e.view(self.flat).data_ptr()]
        replaced += [name for name, counter in self._counters.items() if tensors[name] is not counter]
        if replaced:
            raise TrainingError(
                f"the optimizer or the model replaced a tensor instead of changing it in place (name: {replaced[0]})"
            )

    @contextmanager
    def showing(self, vector: Tensor) -> Iterator[None]:
        """Let the module compute with the parameters in another vector for a while; buffers stay the present ones."""
        if vector is self.flat:
            yield
            return
        present = self.flat[: self.trained].clone()
        self.flat[: self.trained] = vector[: self.trained]
        try:
            yield
        finally:
            self.flat[: self.trained] = present

    def locate(self, tensor: Tensor) -> int | None:
        """Return the offset in the vector at which the tensor views parameters, or None if it views none.

        Parameters viewed as another type, or negated, count as none.
        """
        if tensor.untyped_storage().data_ptr() != self.flat.untyped_storage().data_ptr():
            return None
        if tensor.dtype != self.flat.dtype or tensor.is_neg():
            return None
        offset = int(tensor.storage_offset())
        return offset if offset < self.trained else None


@dataclass(frozen=True, slots=True)
class StageLayout:
    """How to read the vector, and the other buffers, of a stage that lives elsewhere.

    Args:
        entries: parameters and floating buffers in the vector.
        numel: its elements, padding included.
        trained: elements of it that are parameters.
        counters: names and shapes of the other buffers.
    """

    entries: tuple[Entry, ...]
    numel: int
    trained: int
    counters: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, weights: Weights) -> "StageLayout":
        """Describe a stage."""
        counters = tuple((name, tuple(b.shape)) for name, b in weights.counters().items())
        return cls(tuple(weights.entries), weights.flat.numel(), weights.trained, counters)


def _place(parameters: dict[str, nn.Parameter], buffers: dict[str, Tensor]) -> tuple[list[Entry], int, int]:
    entries: list[Entry] = []
    offset = trained = 0
    for name, tensor in [*parameters.items(), *buffers.items()]:
        dense = torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format)
        entries.append(Entry(name, offset, tuple(tensor.shape), dense.stride()))
        size = tensor.element_size()
        assert ALIGNMENT % size == 0
        offset += aligned(tensor.numel() * size) // size
        if name in parameters:
            trained = offset
    return entries, trained, offset


class Versions:
    """Past versions of the parameters of a stage, for whoever holds them.

    A version is copied only when an update is about to overwrite it while somebody holds it.

    Args:
        weights: whose versions.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._holders: Counter[int] = Counter()
        self._copies: dict[int, Tensor] = {}

    def hold(self, version: int) -> None:
        """Keep a version, the present one or one that is held already, until as many releases."""
        assert version == self._weights.version or version in self._copies
        self._holders[version] += 1

    def release(self, version: int) -> None:
        """Undo one hold, and forget the version with the last one."""
        self._holders[version] -= 1
        if not self._holders[version]:
            del self._holders[version]
            self._copies.pop(version, None)

    def read(self, version: int) -> Tensor:
        """Return the vector of a held version: a copy, or the weights of now where they still are that version."""
        return self._weights.flat if version == self._weights.version else self._copies[version]

    def overwriting(self) -> None:
        """Copy the present version, which is about to be overwritten, if somebody holds it."""
        version = self._weights.version
        if version in self._holders:
            self._copies[version] = self._weights.flat[: self._weights.trained].clone()

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return sum(copy.nbytes for copy in self._copies.values())
