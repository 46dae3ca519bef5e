"""The parameters of a stage in one vector, and the past versions of it that somebody still needs.

Does not know: batches, messages, optimizers, other stages, who needs a version and what for.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import State, spectral, tensors_of
from stalegrid.programs import ALIGNMENT, aligned


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
    """All parameters that are trained, then all floating buffers, of a module as views of one vector.

    A version copy, a mix or a message is then one operation.  Every tensor starts on a cache line; the padding
    between them stays 0.  What stays where it is: frozen parameters, which nobody needs to send, other buffers (such as
    BatchNorm's counter of batches), and buffers of another type than the parameters.  So a frozen model with small
    adapters is cheap.  Floating buffers follow whether they change or not: they are small, and one that changes in the
    thousandth update only would otherwise be lost.

    Args:
        module: its trained parameters and floating buffers are moved into the vector, in place.
        moving: names of frozen parameters that the forward changes by itself, such as a moving average of others;
            they are treated like floating buffers.
        mirrored: names of trained parameters that another stage owns; they stay out of the vector.

    Attributes:
        flat: the vector, shape (numel,).
        entries: where each tensor lies, parameters first.
        trained: elements at the start of the vector that hold trained parameters.
        mixed: elements at its start whose mean over replicas has a meaning; the rest are the vectors of spectral norms.
        mirrored: the parameters that another stage owns, by name.
        version: updates applied so far.
        divisor: what the gradients count so far, float64, shape (1,), where they are sums; None where they are means.

    Raises:
        ConfigError: trained parameters have different types or devices.
    """

    def __init__(self, module: nn.Module, moving: Collection[str] = (), mirrored: Collection[str] = ()) -> None:
        self.module = module
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.mirrored = {n: p for n, p in trained.items() if n in mirrored}
        parameters = {n: p for n, p in trained.items() if n not in mirrored}
        frozen = {n: p for n, p in module.named_parameters() if not p.requires_grad}
        buffers = dict(module.named_buffers())
        dtype, device = _kind(parameters, [*frozen.values(), *buffers.values()])
        fitting = {n: b for n, b in buffers.items() if b.dtype == dtype}
        alone = spectral.vectors(module)
        # In this order what is trained, and what is mixed, are each the first part of the vector.
        followers = {
            **{n: p for n, p in frozen.items() if n in moving},
            **{n: b for n, b in fitting.items() if n not in alone},
            **{n: b for n, b in fitting.items() if n in alone},
        }
        # Walking through the modules costs more than a small update; what they hold may not be replaced.
        self._parameters = list(module.parameters())
        self._trainable = list(parameters.values())
        self._counters = {n: b for n, b in buffers.items() if not (b.is_floating_point() or b.is_complex())}
        rest = {n: t for n, t in {**frozen, **buffers}.items() if n not in followers and n not in self._counters}
        self._mirrors = {n: (p, p._version) for n, p in self.mirrored.items()}
        self._still = {n: (t, t._version) for n, t in rest.items()}
        self.entries, numel = _place({**parameters, **followers}, dtype.itemsize)
        ends = {e.name: e.offset for e in self.entries}
        self.trained = next((ends[n] for n in followers), numel)
        self.mixed = next((ends[n] for n in followers if n in alone), numel)
        self.flat = torch.zeros(numel, dtype=dtype, device=device)
        self.version = 0
        self.divisor: Tensor | None = None
        for entry in self.entries:
            tensor, view = {**parameters, **followers}[entry.name], entry.view(self.flat)
            view.copy_(tensor.detach())
            # The data moves and the parameter stays the object that hooks, ties and an optimizer's factory know.
            tensor.data = view

    def counters(self) -> dict[str, Tensor]:
        """Return the buffers of whole numbers, such as BatchNorm's counter of batches."""
        return self._counters

    def still(self) -> dict[str, Tensor]:
        """Return what is neither in the vector nor a counter, and must not change while it trains."""
        return {name: tensor for name, (tensor, _) in self._still.items()}

    @property
    def statistics(self) -> slice:
        """Where in the vector the running statistics are."""
        return slice(self.trained, self.mixed)

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that an optimizer updates."""
        return self._trainable

    def named(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters that an optimizer updates, by their names in the module."""
        return [(entry.name, parameter) for entry, parameter in self.places()]

    def counted(self) -> Tensor:
        """Return a copy of the buffers of whole numbers, as one vector of int64."""
        counters = [b.flatten().to(torch.int64) for b in self.counters().values()]
        return torch.cat([torch.empty(0, dtype=torch.int64, device=self.flat.device), *counters])

    def places(self) -> list[tuple[Entry, nn.Parameter]]:
        """Return where each trained parameter lies."""
        return list(zip(self.entries, self._trainable, strict=False))

    def state_dict(self) -> State:
        """Return the vector, the counters and the version; gradients there are none where a run is saved."""
        return {"flat": self.flat, "counters": self._counters, "version": self.version}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`, in place."""
        self.flat.copy_(state["flat"])
        for name, value in state["counters"].items():
            self._counters[name].copy_(value)
        self.version = state["version"]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self._parameters:
            p.grad = None

    def count(self, number: Tensor) -> None:
        """Note that the gradients are sums, and what the last batch has added to what they count, shape (1,)."""
        self.divisor = number if self.divisor is None else self.divisor + number

    def take_means(self) -> Tensor | None:
        """Divide gradients that are sums by what they count, and return that."""
        counted, self.divisor = self.divisor, None
        if counted is not None:
            number = counted.squeeze()  # a number and not a vector, so that the division is in the gradients' type
            for p in self._trainable:
                if p.grad is not None:
                    p.grad.div_(number)
        return counted

    def check(self) -> None:
        """Check that the module still computes with the vector.

        Raises:
            TrainingError: a tensor was replaced instead of changed in place, or one changed that should not.
        """
        tensors = tensors_of(self.module)
        others = {**self._counters, **self.still(), **self.mirrored}
        gone = [n for n in (*(e.name for e in self.entries), *others) if n not in tensors]
        if gone:
            raise TrainingError(f"the model has lost a tensor in training (name: {gone[0]}); change it in place")
        replaced = [e.name for e in self.entries if tensors[e.name].data_ptr() != e.view(self.flat).data_ptr()]
        replaced += [n for n, kept in others.items() if tensors[n] is not kept]
        if (found := len(tensors)) != len(self.entries) + len(others):
            raise TrainingError(
                f"the model has registered a tensor in training (tensors: {found}), which the measured and saved model "
                "would not have; make it in __init__"
            )
        if replaced:
            raise TrainingError(
                f"the optimizer or the model replaced a tensor instead of changing it in place (name: {replaced[0]}); "
                "write tensor.copy_(value) for tensor = value, or tensor.data = value"
            )
        self.check_still()

    def check_still(self) -> None:
        """Check that what should not change has not, without a walk through the module.

        Raises:
            TrainingError: something has changed in place.
        """
        for name, (tensor, modified) in {**self._still, **self._mirrors}.items():
            if tensor._version != modified:
                raise TrainingError(
                    f"the model changes a tensor that it left alone at the start (name: {name}), so that other "
                    "replicas and the saved model would not have it; make it a floating buffer of the parameters' type"
                )

    @contextmanager
    def showing(self, vector: Tensor) -> Iterator[None]:
        """Let the module compute with the parameters in another vector for a while; buffers stay the present ones."""
        if vector is self.flat:
            yield
            return
        # Written over the parameters and put back: two copies, but every module, hook and fused kernel keeps working.
        present, changes = self.flat[: self.trained].clone(), self.changes()
        self.flat[: self.trained] = vector[: self.trained]
        try:
            yield
        finally:
            self.flat[: self.trained] = present
        self.check_unchanged(changes)

    def changes(self) -> int:
        """Return how often the module, or an optimizer, has changed trained parameters in place."""
        # Each counter only grows, so their sum is the same only if none has moved.
        return sum(p._version for p in self._trainable)

    def check_unchanged(self, changes: int) -> None:
        """Check that a forward at other weights than one's own has not changed them, which would be lost.

        Args:
            changes: before it, see :meth:`changes`.

        Raises:
            TrainingError: it has.
        """
        if self.changes() != changes:
            raise TrainingError(
                "a forward has changed a trained parameter in place, which would be lost here; take view stashed on a "
                "grid, or do it in the optimizer"
            )

    def locate(self, tensor: Tensor) -> int | None:
        """Return the offset in the vector at which the tensor views parameters, or None if it views none.

        Parameters viewed as another type, or negated, count as none.
        """
        if tensor.untyped_storage().data_ptr() != self.flat.untyped_storage().data_ptr():
            return None
        if tensor.dtype != self.flat.dtype or tensor.is_neg():
            return None
        offset = int(tensor.storage_offset())
        # A buffer is no parameter: what the graph saved of it has to be what the forward saw.
        return offset if offset < self.trained else None


@dataclass(frozen=True, slots=True)
class StageLayout:
    """How to read the vector, and the other buffers, of a stage that lives elsewhere.

    Args:
        entries: trained parameters and what follows them in the vector.
        numel: its elements, padding included.
        trained: elements of it that are trained.
        mixed: elements of it whose mean over replicas has a meaning.
        dtype: of the vector.
        counters: names and shapes of the buffers of whole numbers.
    """

    entries: tuple[Entry, ...]
    numel: int
    trained: int
    mixed: int
    dtype: torch.dtype
    counters: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, weights: Weights) -> "StageLayout":
        """Describe a stage."""
        counters = tuple((name, tuple(b.shape)) for name, b in weights.counters().items())
        flat = weights.flat
        return cls(tuple(weights.entries), flat.numel(), weights.trained, weights.mixed, flat.dtype, counters)

    @property
    def names(self) -> frozenset[str]:
        """Names of what lies in the vector."""
        return frozenset(entry.name for entry in self.entries)

    @property
    def parameters(self) -> int:
        """How many tensors are trained."""
        return sum(entry.offset < self.trained for entry in self.entries)


def _kind(trained: dict[str, nn.Parameter], others: Iterable[Tensor]) -> tuple[torch.dtype, torch.device]:
    """Return the type and device of the vector: that of what is trained, or of what else there is."""
    kinds = {(p.dtype, p.device) for p in trained.values()}
    if len(kinds) > 1:
        shown = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ConfigError(f"all trained parameters of a stage must share one type and device ({shown}); name a dtype")
    floating = ((t.dtype, t.device) for t in others if t.is_floating_point())
    return kinds.pop() if kinds else next(floating, (torch.float32, torch.device("cpu")))


def _place(tensors: dict[str, Tensor], size: int) -> tuple[list[Entry], int]:
    entries: list[Entry] = []
    offset = 0
    assert ALIGNMENT % size == 0
    for name, tensor in tensors.items():
        # In the tensor's own order of dimensions: convolutions in channels_last stay so.
        dense = torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format)
        entries.append(Entry(name, offset, tuple(tensor.shape), dense.stride()))
        offset += aligned(tensor.numel() * size) // size
    return entries, offset


class Versions:
    """Past versions of the parameters of a stage, for whoever holds them.

    A version is copied only when an update is about to overwrite it while somebody holds it: a view, a correction or
    the ledger, which so share one copy.

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
            # What is trained alone: running statistics have no versions.
            self._copies[version] = self._weights.flat[: self._weights.trained].clone()

    def state_dict(self) -> State:
        """Return the copies, and how often each version is held."""
        return {"holders": self._holders, "copies": self._copies}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._holders, self._copies = state["holders"], state["copies"]

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return sum(copy.nbytes for copy in self._copies.values())
