"""Forward and backward of one stage, cut from its neighbours' graphs.

Does not know: other stages, schedules, optimizers, messages.

PyTorch refuses a backward through a graph whose weights were changed in place.  Around the forward, saved tensors that
view the stage's parameters are therefore replaced by their place in the vector, and read back at the backward from
whichever vector the view names: a copy from before the version was overwritten, the weights of now, or any other.  So
are, where a lower precision casts parameters, their casts, unless the view shows what the forward has cast.
Everything else that a graph saves is kept, and still checked against in-place changes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_forward_pre_hook

from stalegrid.errors import TrainingError
from stalegrid.objects import Form, Memory, State, call, kept_apart, recall, remembered, spread, tensors_held
from stalegrid.stages.compiled import Compiled
from stalegrid.stages.mirrors import Mirrors
from stalegrid.stages.precision import Cast, Casts, Precision
from stalegrid.stages.views.named import View
from stalegrid.stages.weights import Weights

Tensors = tuple[Tensor, ...]
Gradients = tuple[Tensor | None, ...]
"""None where nothing depends on a tensor: what feeds it alone gets no gradient either, which is not one of zero."""
Head = Callable[..., Tensor]
"""On the last stage: outputs -> loss, shape ()."""


@dataclass(frozen=True, slots=True)
class Place:
    """A saved tensor that views the parameters, or a cast of some: how to read it from any vector of their layout."""

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    cast: Cast | None = None

    def read(self, vector: Tensor) -> Tensor:
        """Return the same view of another vector, or of the same cast of it."""
        base = vector if self.cast is None else self.cast.of(vector)
        return base.as_strided(self.shape, self.stride, base.storage_offset() + self.offset)


@dataclass(frozen=True, slots=True)
class Saved:
    """Any other saved tensor, and its modification counter when it was saved."""

    tensor: Tensor
    modified: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A batch whose graph is kept, with the bytes of all that it keeps."""

    inputs: Tensors
    outputs: Tensors
    version: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Began:
    """A batch whose forward is to be made again, in another process maybe: what it was made of.

    Args:
        version: of the weights.
        weights: what is trained, as it was shown; None where the view holds that version anyway.
        followers: the rest of the vector, such as running statistics, as the forward found it.
        counters: the buffers of whole numbers, likewise.
        objects: what module and loss remembered.
    """

    version: int
    weights: Tensor | None
    followers: Tensor
    counters: dict[str, Tensor]
    objects: Any


class Stage:
    """One stage: a module, its weights, and the batches in flight.

    Args:
        module: maps the tensors of the stage below to a tensor or a tuple of tensors, and on the last stage to what
            the model returns; in the modes in which it trains.
        weights: of that module.
        view: which weights forwards use and late backwards see.
        first: whether the inputs are data or made by what is not trained, and so need no gradient.
        form: of the arguments of the module; None where it takes the inputs one by one.
        precision: what it computes in.
        compiles: whether torch's compiler makes code of the module.

    Attributes:
        mirrors: of other stages' parameters.
        lent: by name, copies of the parameters that the last forward was asked for, as it used them.
        memory: of what a forward calls; None where nobody forwards again.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Weights,
        view: View,
        first: bool,
        form: Form | None = None,
        precision: Precision = Precision(),  # noqa: B008 - it has no state
        compiles: bool = False,
    ) -> None:
        self.module = module
        self._called = Compiled(module, form) if compiles else partial(call, module, form)
        self._precision = precision
        self._casts: Casts | None = None  # of the forward under way
        self.mirrors = Mirrors(weights.mirrored, weights.version)
        self._shared = {entry.name: p for entry, p in weights.places()} | weights.mirrored
        self.lent: dict[str, Tensor] = {}
        self.memory: Memory | None = None
        self.weights = weights
        self.view = view
        self._first = first
        self._graphs: dict[int, Graph] = {}
        self._keeping: set[int] = set()  # batches whose forward is to be made again
        self._began: dict[int, Began] = {}
        self._found: dict[int, tuple[Tensor, dict[str, Tensor]]] = {}  # statistics before forwards of stages without
        self._saved: dict[int, int] = {}  # storage -> bytes, of the graph that is being made
        lasting = _storages([weights.flat, *tensors_held(module)])  # what is there before any forward
        others = _storages(weights.mirrored.values())  # which other weights will replace
        self._lasting = {storage: nbytes for storage, nbytes in lasting.items() if storage not in others}
        site = view.site
        self._elsewhere = view.elsewhere and view.late(site.schedule, site.unit.stage)
        self._seen = weights.flat  # what the backward under way reads parameters from
        self._reviving: dict[int, Any] = {}

    def forward(
        self, batch: int, inputs: Tensors, head: Head | None = None, lend: Sequence[str] = ()
    ) -> tuple[Tensors, int]:
        """Forward a batch and keep its graph.

        Args:
            batch: its index.
            inputs: activations of the stage below, or data.
            head: on the last stage, outputs -> loss, shape ().
            lend: names of parameters that other stages use in this batch too.

        Returns:
            The outputs, cut from the graph (with a head, the loss alone), and the version they were made at.

        Raises:
            TrainingError: the view forwards at other weights than it is said to.
        """
        version, vector = self._forwarding(batch)
        if batch in self._keeping:
            self._keep(batch, version, vector)
        with self.weights.showing(vector):
            # Cut and copied within: an output may be a view of the parameters, which show that vector only here.
            outputs = self._make_graph(batch, inputs, head, version)
            self._lend(lend)
            return tuple(self._own(y) for y in outputs), version

    def prepare(self, inputs: Tensors) -> None:
        """Have a forward compiled before any batch comes, and leave all else as it was.

        Args:
            inputs: of whose shapes and types batches will be; the numbers do not matter.
        """
        weights, module = self.weights, self.module
        given = [*module.parameters(), *module.buffers(), weights.flat]
        present = weights.flat.clone(), {n: c.clone() for n, c in weights.counters().items()}
        objects = remembered(module, given)
        with saved_tensors_hooks(forget, forget):
            self._run(self._cut(inputs), None)
        self._set(*present)
        recall(module, objects, given)

    def recompute(self, batch: int) -> None:
        """Do nothing: the graph is there."""

    def keep(self, batch: int) -> None:
        """Keep all that the forward of a batch, which comes next, is made of, until its backward."""
        self._keeping.add(batch)

    def state_dict(self) -> State:
        """Return what forwards of batches in flight are made of; graphs cannot be saved."""
        began = self._began.items()
        batches = {
            b: (
                self._graphs[b].inputs,
                one.version,
                self._held(one.version) if one.weights is None else one.weights,
                one.followers,
                one.counters,
                one.objects,
            )
            for b, one in began
        }
        return {"batches": batches, "mirrors": self.mirrors.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`, but for graphs; :meth:`revive` makes those."""
        self._reviving = state["batches"]
        self._found = state.get("found", {})
        self.mirrors.load_state_dict(state["mirrors"])

    def revive(self, batch: int, head: Head | None = None) -> None:
        """Forward a batch again as it was forwarded before the state was saved, to have its graph.

        Args:
            batch: its index; in order.
            head: as for :meth:`forward`.
        """
        inputs, *made_of = self._reviving.pop(batch)
        # Another save may come before its backward.
        found, weights = Began(*made_of), self.weights
        assert found.weights is not None  # a state has them all
        self._began[batch] = found
        present = weights.flat.clone(), {n: c.clone() for n, c in weights.counters().items()}
        objects = self._remembered()
        self._recall(kept_apart(found.objects))
        self._set(torch.cat([found.weights, found.followers]), found.counters)
        with self.mirrors.showing(batch):
            self._make_graph(batch, self._cut(inputs), head, found.version)
        self._set(*present)
        self._recall(objects)

    def _find(self, batch: int) -> None:
        """Note the statistics and counters that the forward of a batch, which comes next, finds."""
        counters = {name: counter.clone() for name, counter in self.weights.counters().items()}
        self._found[batch] = self.weights.flat[self.weights.trained :].clone(), counters

    def _state(self, batches: Mapping[int, Any]) -> State:
        """Return a state with what there is of batches in flight, where no graphs are made again."""
        self._found = {batch: found for batch, found in self._found.items() if batch in batches}
        return {"batches": dict(batches), "found": self._found, "mirrors": self.mirrors.state_dict()}

    def outputs(self, batch: int) -> Tensors:
        """Return what the graph of a batch in flight made."""
        return self._graphs[batch].outputs

    def inputs(self, batch: int) -> Tensors:
        """Return what the graph of a batch in flight was made of, besides parameters."""
        return self._graphs[batch].inputs

    def backward(self, batch: int, gradients: Gradients, later: Mapping[str, Tensor] | None = None) -> Gradients:
        """Backpropagate a batch in flight, adding to the gradients of the parameters.

        Args:
            batch: its index.
            gradients: of the floating outputs, in order.
            later: gradients of parameters, by name, from uses of them in the stages above.

        Returns:
            The gradients of the floating inputs, in order; none where they need none.
        """
        graph = self._graphs.pop(batch)
        self._began.pop(batch, None)
        floating = [y for y in graph.outputs if y.is_floating_point()]
        given = zip(floating, gradients, strict=True)
        pairs = [(y, g) for y, g in given if y.requires_grad and g is not None]
        # Roots are added before what the graph adds: the last use first, as in the graph of a whole model.
        pairs += [(self._shared[name], g) for name, g in (later or {}).items()]
        self._seen = self.view.seen(graph.version)
        # Only then may a forward that runs again within the backward find other weights than it did.
        late = self._elsewhere or self._seen is not self.weights.flat or graph.version != self.weights.version
        if pairs:
            with _no_forward() if late else nullcontext(), self.mirrors.showing(batch):
                torch.autograd.backward([y for y, _ in pairs], [g for _, g in pairs])
        # What unpacks outside a backward, such as a penalty on gradients in a forward, sees the weights of now.
        self._seen = self.weights.flat
        self.view.finished(graph.version)
        self.mirrors.finished(batch)
        return () if self._first else tuple(x.grad for x in graph.inputs if x.is_floating_point())

    @property
    def nbytes(self) -> int:
        """Bytes held for batches in flight, without copies of the weights."""
        return sum(graph.nbytes for graph in self._graphs.values()) + self.mirrors.nbytes

    def _forwarding(self, batch: int) -> tuple[int, Tensor]:
        self.mirrors.forwarding(batch)
        version, vector = self.view.forwarding(batch)
        if vector is not self.weights.flat and not self.view.elsewhere:
            raise TrainingError(
                f"the view forwards at other weights than those of now (view: {type(self.view).__name__}, batch: "
                f"{batch}), and the model was not tried that way; set elsewhere = True in its class"
            )
        return version, vector

    def _keep(self, batch: int, version: int, vector: Tensor) -> None:
        self._keeping.remove(batch)
        weights = self.weights
        last = next(reversed(self._began.values()), None)
        # Batches that are forwarded at one version share a copy; a view that shows others makes each anew.
        same = vector is weights.flat and last is not None and last.version == version
        held = self.view.holds and vector is weights.flat
        own = last.weights if same and last is not None else None if held else vector[: weights.trained].clone()
        counters = {name: counter.clone() for name, counter in weights.counters().items()}
        self._began[batch] = Began(version, own, weights.flat[weights.trained :].clone(), counters, self._remembered())

    def _held(self, version: int) -> Tensor:
        """Return what was trained at a version that the view holds: the very copy, which so is saved once."""
        found = self.view.site.versions.read(version)
        return found[: self.weights.trained] if found is self.weights.flat else found

    def _remembered(self) -> Any:
        return None if self.memory is None else kept_apart(self.memory.state_dict())

    def _recall(self, objects: Any) -> None:
        if self.memory is not None:
            self.memory.load_state_dict(objects)

    def _set(self, vector: Tensor, counters: Mapping[str, Tensor]) -> None:
        self.weights.flat.copy_(vector)
        for name, counter in self.weights.counters().items():
            counter.copy_(counters[name])

    def _lend(self, names: Sequence[str]) -> None:
        self.lent = {name: self._shared[name].detach().clone() for name in names}

    def _make_graph(self, batch: int, inputs: Tensors, head: Head | None, version: int) -> Tensors:
        leaves = self._cut(inputs)
        with saved_tensors_hooks(self._pack, self._unpack), self._watching():
            outputs = self._run(leaves, head)
        self._graphs[batch] = Graph(leaves, outputs, version, self._weigh(leaves, outputs))
        return outputs

    def _weigh(self, leaves: Tensors, outputs: Tensors) -> int:
        """Return the bytes of the graph that was made, without what outlives it; received tensors share one buffer."""
        # What the module holds is there without this graph; inputs are counted by themselves.
        elsewhere = self._lasting | _storages([*leaves, *self.weights.mirrored.values()])
        saved, self._saved = self._saved | _storages(outputs), {}
        return size_of(leaves) + sum(nbytes for storage, nbytes in saved.items() if storage not in elsewhere)

    def _cut(self, inputs: Tensors) -> Tensors:
        return tuple(x.detach().requires_grad_(not self._first and x.is_floating_point()) for x in inputs)

    def _run(self, inputs: Tensors, head: Head | None) -> Tensors:
        # On the inputs' device: a stage may have no parameter of its own.
        with self._precision.on(inputs[0].device):
            outputs = spread(self._called(inputs))
            return outputs if head is None else (head(*outputs),)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Watch the casts of parameters for a while, if backwards make them anew."""
        if not self._precision.anew:
            yield
            return
        self._casts = Casts(self.weights.locate)
        try:
            with self._casts:
                yield
        finally:
            self._casts = None

    def _own(self, output: Tensor) -> Tensor:
        """Cut an output from its graph, and copy what a later forward or update may change: the receiver keeps it.

        What has a gradient is made anew by each forward, unless the module holds its memory.  What has none may be
        anything: an attribute, an input, a tensor that some function remembers.
        """
        fresh = output.requires_grad and output.untyped_storage().data_ptr() not in self._lasting
        return output.detach() if fresh else output.detach().clone()

    def _pack(self, tensor: Tensor) -> Place | Saved:
        offset = self.weights.locate(tensor)
        if offset is not None:
            return Place(offset, tuple(tensor.shape), tensor.stride())
        cast = None if self._casts is None else self._casts.find(tensor)
        if cast is not None:
            return Place(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), cast)
        self._saved |= _storages([tensor])
        # Detached, because a saved output that kept itself would be a cycle that is never freed.
        return Saved(tensor.detach(), tensor._version)

    def _unpack(self, packed: Place | Saved) -> Tensor:
        if isinstance(packed, Place):
            return packed.read(self._seen)
        if packed.tensor._version != packed.modified:
            raise RuntimeError(
                "a tensor needed by the backward was modified in place by the model "
                f"(shape: {tuple(packed.tensor.shape)}); use the out-of-place form of that operation"
            )
        return packed.tensor


@contextmanager
def _no_forward() -> Iterator[None]:
    """Refuse the forward of any module for a while, without a mark on the user's modules."""

    def refuse(module: nn.Module, inputs: object) -> None:
        raise RuntimeError(
            f"the model runs a forward again in its backward (module: {type(module).__name__}), as activation "
            "checkpointing does, with weights that have changed since; do not checkpoint inside a stale stage, or take "
            "view recomputed"
        )

    # For all modules of the process, in which one thread alone computes.
    hook = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def forget(saved: Any) -> Any:
    """Keep nothing for a backward, which never comes."""


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of each tensor's memory, once a storage."""
    storages = (t.untyped_storage() for t in tensors if t.layout == torch.strided)
    return {s.data_ptr(): s.nbytes() for s in storages}


def size_of(tensors: Tensors) -> int:
    """Return the bytes of tensors that may share one buffer with others."""
    return sum(t.nbytes for t in tensors)


def before_batches(weights: State, stage: State) -> State:
    """Return the state of weights without what batches in flight have done to it, where that is kept.

    So whoever has none of these batches counts none in statistics.

    Args:
        weights: state of them.
        stage: state of theirs.
    """
    batches, found = stage["batches"], stage.get("found", {})
    if not batches:
        return weights
    first = min(batches)
    if "found" not in stage:
        followers, counters = batches[first][_FOLLOWERS : _FOLLOWERS + 2]
    elif first in found:
        followers, counters = found[first]
    else:
        return weights
    trained = weights["flat"][: len(weights["flat"]) - len(followers)]
    return {**weights, "flat": torch.cat([trained, followers]), "counters": counters}


_FOLLOWERS = 3
"""Their place in what a state has of a batch, its inputs first and then what :class:`Began` has."""
