"""What the making of a model does, written down instead of done: the model comes out without memory.

Does not know: stages, processes, who will want which values.

Every operation on tensors is carried out on tensors without content (``meta``), and noted with what it was given.  Done
again in memory, those that a parameter depends on make its value, as the model's own code has it, whatever that does:
initialisers of layers, of a constructor, or of a library.  ``reset_parameters`` of layers alone would silently lose
what the model does beside them.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import takewhile
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from stalegrid.errors import ConfigError
from stalegrid.objects import tensors_of

META = torch.device("meta")

EMPTY = ("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided")
"""Operations that leave whatever is in memory."""

OVERWRITING = ("uniform_", "normal_", "zero_", "fill_", "copy_", "random_", "bernoulli_", "exponential_")
"""Operations that leave nothing of what was in memory."""

OWN_GENERATOR = "it draws from a generator of its own, which nobody could key by the name of a parameter"

Memories = dict[int, torch.UntypedStorage]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies.

    Args:
        memory: its number.
        offset: of the first element, in elements.
        shape: of the tensor.
        stride: likewise.
        dtype: likewise.
    """

    memory: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()

    def tensor(self, memories: Memories) -> Tensor:
        """Return the tensor that lies there."""
        return torch.empty(0, dtype=self.dtype).set_(memories[self.memory], self.offset, self.shape, self.stride)


@dataclass(frozen=True, slots=True)
class Step:
    """An operation that made or changed tensors without content.

    Args:
        operator: of torch, or an initialiser.
        args: with places for tensors without content; other tensors are there themselves.
        kwargs: likewise.
        made: where what it returned lies.
        reads: memories whose content mattered.
        writes: memories that it made or changed.
        default: the default type of then.
    """

    operator: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: tuple[Place, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    default: torch.dtype

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        operator = self.operator
        return not isinstance(operator, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in operator.tags

    @property
    def given(self) -> list[Place]:
        """Where the tensors without content lie that it was given."""
        return [place for place in tree_leaves((self.args, self.kwargs)) if isinstance(place, Place)]

    def do(self, memories: Memories, sizes: Mapping[int, int]) -> None:
        """Do it in memory.

        Args:
            memories: by number; some are added.
            sizes: of all, in bytes.

        Raises:
            ConfigError: the result lies otherwise there than it did without memory.
        """
        for place in self.given:
            # What is not there yet is overwritten whole, or was never filled.
            if place.memory not in memories:
                memories[place.memory] = torch.UntypedStorage(sizes[place.memory])  # type: ignore[no-untyped-call]
        args, kwargs = tree_map_only(Place, lambda place: place.tensor(memories), (self.args, self.kwargs))
        made = [t for t in tree_leaves(self.operator(*args, **kwargs)) if isinstance(t, Tensor)]
        for place, tensor in zip(self.made, made, strict=True):
            if (place.offset, place.shape, place.stride, place.dtype) != _lying(tensor):
                raise ConfigError(
                    f"an operation gives something else in memory than without (operation: {name_of(self.operator)}, "
                    f"shape: {place.shape}, here: {tuple(tensor.shape)}), so the model cannot be built stage by stage; "
                    "give the model itself, not its factory"
                )
            memories.setdefault(place.memory, tensor.untyped_storage())


@dataclass(frozen=True)
class Recording:
    """How the tensors of a model come about.

    Args:
        steps: in their order.
        places: of parameters and buffers without content, by name.
        sizes: of the memories, in bytes.
    """

    steps: tuple[Step, ...]
    places: dict[str, Place]
    sizes: dict[int, int]

    def history(self, name: str) -> list[int]:
        """Return the numbers of the steps that the content of a tensor depends on, ascending."""
        found: set[int] = set()
        pending, seen = [(self.places[name].memory, len(self.steps))], set()
        while pending:
            memory, end = pending.pop()
            if (memory, end) in seen:
                continue
            seen.add((memory, end))
            earlier = list(takewhile(lambda i, end=end: i < end, self._writers.get(memory, [])))  # type: ignore[misc]
            for i in reversed(earlier):
                found.add(i)
                pending += [(read, i) for read in self.steps[i].reads]
                if memory not in self.steps[i].reads:  # all of it is new
                    break
        return sorted(found)

    def is_filled(self, name: str) -> bool:
        """Return whether anything gives a tensor a content."""
        return not all(name_of(self.steps[i].operator) in EMPTY for i in self.history(name))

    def value(self, name: str, drawing: Callable[[int], AbstractContextManager[object]]) -> Tensor:
        """Return a tensor in memory.

        Args:
            name: of the tensor.
            drawing: number of a step -> in which generators draw for it.
        """
        memories: Memories = {}
        before = torch.get_default_dtype()
        try:
            for i in self.history(name):
                torch.set_default_dtype(self.steps[i].default)
                with torch.no_grad(), drawing(i):
                    self.steps[i].do(memories, self.sizes)
        finally:
            torch.set_default_dtype(before)
        return self.places[name].tensor(memories)

    @cached_property
    def _writers(self) -> dict[int, list[int]]:
        """The steps that write each memory, ascending."""
        found: dict[int, list[int]] = {}
        for i, step in enumerate(self.steps):
            for memory in step.writes:
                found.setdefault(memory, []).append(i)
        return found


def name_of(operator: Callable[..., Any]) -> str:
    """Return the name of an operation, whichever variant of it."""
    if isinstance(operator, torch._ops.OpOverload):
        return str(operator._schema.name).removeprefix("aten::")
    return operator.__name__


def _lying(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]:
    return int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype


ANSWERS: dict[object, object] = {
    torch.Tensor.is_meta.__get__: False,  # type: ignore[attr-defined]
    torch.Tensor.is_cpu.__get__: True,  # type: ignore[attr-defined]
    torch.Tensor.device.__get__: torch.device("cpu"),
}
"""What a tensor without content says of where it is."""

REJECTING = "_no_grad_trunc_normal_"
"""The initialiser of torch that draws again what is out of bounds, and so looks at values: one step."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations, and does them without content."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._numbers: dict[int, int] = {}
        self._memories: list[torch.UntypedStorage] = []  # kept, so that no later one has the same identity

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # here tensors say what they are
            return self._done(func, args, dict(kwargs or {}))

    def _done(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if given and not any(t.is_meta for t in given):
            return func(*args, **kwargs)  # on what is made of numbers, such as torch.tensor([1, 2]), which has content
        if any(isinstance(value, torch.Generator) for value in tree_leaves((args, kwargs))):
            raise TypeError(OWN_GENERATOR)
        names = {argument.name for argument in func._schema.arguments}
        if "device" in names and (not given or kwargs.get("device") is not None):
            kwargs["device"] = META
        changed = _changed(func, args, kwargs)
        if not all(t.is_meta for t in changed):
            raise TypeError("it copies what has no content yet into a tensor that has")
        known = len(self._memories)
        held = [self.place(t) for t in given if t.is_meta]
        bare, named = tree_map_only(Tensor, lambda t: t.to(META), (tuple(args), kwargs))
        made = func(*bare, **named)
        self._note(func, (tuple(args), kwargs), held, [self.place(t) for t in changed], made, known)
        return made

    def place(self, tensor: Tensor) -> Place:
        """Return where a tensor without content lies."""
        memory = tensor.untyped_storage()
        number = self._numbers.setdefault(memory._cdata, len(self._memories))
        if number == len(self._memories):
            self._memories.append(memory)
        return Place(number, *_lying(tensor))

    def sizes(self) -> dict[int, int]:
        """Return the bytes of every memory."""
        return {number: memory.nbytes() for number, memory in enumerate(self._memories)}

    def made_of(self, memory: int) -> list[int]:
        """Return a memory, and those that its content was made of, the nearest first."""
        found = [memory]
        for one in found:
            reads = (read for step in self.steps if one in step.writes for read in step.reads)
            found += dict.fromkeys(read for read in reads if read not in found)
        return found

    def rejecting(self, fill: Callable[..., Tensor], tensor: Tensor, *args: Any, generator: Any = None) -> Tensor:
        """Note an initialiser that looks at the values that it draws.

        Args:
            fill: the initialiser.
            tensor: that it fills.
            args: numbers.
            generator: that it draws from; None for the global one.
        """
        if tensor.untyped_storage()._cdata not in self._numbers:
            return fill(tensor, *args, generator=generator)
        if generator is not None:
            raise TypeError(OWN_GENERATOR)
        with torch._C.DisableTorchFunction():
            self._note(fill, ((tensor, *args), {}), [], [self.place(tensor)], tensor, len(self._memories))
        return tensor

    def _note(
        self,
        func: Any,
        given: tuple[tuple[Any, ...], dict[str, Any]],
        held: list[Place],
        changed: list[Place],
        made: Any,
        known: int,
    ) -> None:
        places = tuple(self.place(t) for t in tree_leaves(made) if isinstance(t, Tensor))
        writes = {p.memory for p in places if p.memory >= known} | {p.memory for p in changed}
        if not writes:  # a view, which a place says
            return
        args, kwargs = tree_map_only(Tensor, lambda t: self.place(t) if t.is_meta else t.detach().clone(), given)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        whole = {p.memory for p in changed if p.nbytes == self._memories[p.memory].nbytes()}
        renewed = whole if name_of(func) in OVERWRITING else set()
        reads = [p.memory for p in held if p.memory not in renewed]
        self.steps.append(
            Step(func, args, kwargs, places, frozenset(reads), frozenset(writes), torch.get_default_dtype())
        )


def _changed(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors that an operation changes in place."""
    found: list[Any] = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += tree_leaves(args[i] if i < len(args) else kwargs.get(argument.name))
    return [t for t in found if isinstance(t, Tensor)]


class _Disguise(TorchFunctionMode):
    """Lets tensors without content look as they will, and remembers with which of them a function of torch failed.

    Initialisers, those of torch too, do nothing to a tensor that says that it is ``meta``.
    """

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.name: str | None = None
        self._recorder = recorder
        self._names: dict[int, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ANSWERS and args[0].is_meta:
            return ANSWERS[func]
        try:
            return func(*args, **(kwargs or {}))
        except Exception:
            found = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.is_meta]
            self.name = next(iter(map(self._shown, found)), self.name)
            raise

    def _shown(self, tensor: Tensor) -> str:
        """Return what a tensor is, or is made of, or else its shape."""
        made_of = self._recorder.made_of(self._recorder.place(tensor).memory)
        return next((self._names[m] for m in made_of if m in self._names), f"of shape {tuple(tensor.shape)}")

    def register(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        """Remember what a tensor is."""
        with torch._C.DisableTorchFunction():
            bare = isinstance(tensor, Tensor) and not is_lazy(tensor) and tensor.is_meta
        if bare:
            assert tensor is not None
            self._names[self._recorder.place(tensor).memory] = f"{name} of {type(module).__name__}"


def record(factory: Callable[[], nn.Module]) -> tuple[nn.Module, Recording]:
    """Let a factory make a model without memory.

    Args:
        factory: makes the model.

    Returns:
        The model, whose parameters and buffers have no content (``meta``), but for such as are made of numbers or
        arrays; and how they come about.

    Raises:
        ConfigError: it fails, reads the content of a tensor, or makes what cannot be parted.
    """
    recorder = _Recorder()
    disguise, rejecting = _Disguise(recorder), getattr(nn.init, REJECTING)
    with ExitStack() as stack:
        for register in (register_module_parameter_registration_hook, register_module_buffer_registration_hook):
            stack.callback(register(disguise.register).remove)
        stack.enter_context(mock.patch.object(nn.init, REJECTING, partial(recorder.rejecting, rejecting)))
        for place in (torch, torch.random):
            stack.enter_context(mock.patch.object(place, "manual_seed", _refuse_seed))
        stack.enter_context(recorder)
        stack.enter_context(disguise)
        try:
            model = factory()
        except Exception as problem:  # the factory is the user's: anything can be raised
            at = "" if disguise.name is None else f" (at the parameter or tensor: {disguise.name})"
            raise ConfigError(
                f"the model cannot be built without memory{at}: {problem}; parameters have no content while the "
                "factory runs: let it read none, or give the model that it makes"
            ) from problem
    if not isinstance(model, nn.Module):
        raise ConfigError(f"the factory makes no torch.nn.Module (it makes: {type(model).__name__})")
    lazy = [name for name, tensor in tensors_of(model).items() if is_lazy(tensor)]
    if lazy:
        raise ConfigError(
            f"the first forward makes a parameter or buffer (name: {lazy[0]}), and a model that is built without "
            "memory is cut before it; give its size"
        )
    places = {name: recorder.place(t) for name, t in tensors_of(model).items() if t.is_meta}
    _check_parted(model, places)
    return model, Recording(tuple(recorder.steps), places, recorder.sizes())


def _refuse_seed(seed: int) -> None:
    raise TypeError(f"it seeds random numbers (seed: {seed}), which are drawn by the names of parameters")


def _check_parted(model: nn.Module, places: Mapping[str, Place]) -> None:
    """Refuse tensors that lie in each other's memory, and those that no name reaches."""
    owners: dict[int, str] = {}
    for name, place in places.items():
        if (owner := owners.setdefault(place.memory, name)) != name:
            raise ConfigError(
                f"two tensors of the model share memory (names: {owner}, {name}), which copies of them would not; give "
                "each its own, give one tensor two names, or take the one from the other in the forward"
            )
    known = {id(t) for t in tensors_of(model).values()}
    for path, part in model.named_modules():
        for name, value in vars(part).items():
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, Tensor) and one.is_meta and id(one) not in known:
                    raise ConfigError(
                        f"a tensor of the model is no parameter or buffer (attribute: {path}.{name}), so nothing could "
                        "give it a content; register it as a buffer (persistent=False)"
                    )
