"""A model as a list of single operations, of which a stage is any contiguous part.

Does not know: how the list was made, costs, groups, messages.

Values that cross a cut and are used later than in the next stage travel through the stages in between, so skip
connections need no care.  What depends on neither data nor parameters, such as positions or a mask by shape alone, does
not cross: every stage that needs it makes it.  Complex numbers cross as pairs of real ones, as gradients do.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import Form, Tensors, shapes_of
from stalegrid.partition.asking import holds
from stalegrid.partition.operations import Kinds, Operations
from stalegrid.partition.outputs import Returned
from stalegrid.partition.regions import innermost

RETURNED = "_returned"
"""The module of a last stage that puts its outputs together."""


# A module, so that it moves to a device with its stage; no buffer, which would be mixed and saved.
class Constant(nn.Module):
    """A tensor that moves with its stage, but is no part of its weights.

    Args:
        tensor: that there is.
    """

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def forward(self) -> Tensor:
        """Return it."""
        return self.tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.tensor = fn(self.tensor)
        return self


def of_shape(batch: Tensor, shape: torch.Size) -> Tensor:
    """Return an input as it is.

    Raises:
        TrainingError: it has another shape than the one that the model was traced with.
    """
    if batch.shape != shape:
        raise TrainingError(
            f"a batch has another shape than the one that the model was cut for (shape: {tuple(batch.shape)}, cut for: "
            f"{tuple(shape)}); let all samples have the same shape, or train with one stage"
        )
    return batch


@dataclass(frozen=True)
class Chain:
    """A captured model.

    Attributes:
        model: the model that was captured.
        graph: its operations, which return a tuple of tensors.
        constants: tensors of the graph that are no parameters or buffers of the model, by the name they have there.
        shapes: of the inputs, on which operations may depend.
        form: of what the model returns.
        kinds: of the values that cross cuts.
        opaque: modules that could not be followed, by path: why.
    """

    model: nn.Module
    graph: fx.Graph
    constants: dict[str, Tensor]
    shapes: tuple[torch.Size, ...]
    form: Form
    kinds: Kinds = field(default_factory=Kinds)
    opaque: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, operations: Operations, model: nn.Module) -> "Chain":
        """Let a copy of the model have the operations that were captured elsewhere."""
        o = operations
        return cls(model, o.graph(), o.constants, o.shapes, o.form, o.kinds)

    @cached_property
    def nodes(self) -> tuple[fx.Node, ...]:
        """The operations that compute, in order; cut ``i`` lies before node ``i``."""
        return tuple(n for n in self.graph.nodes if n.op.startswith("call_") and n.target is not holds)

    @property
    def operations(self) -> Operations:
        """The chain without the model, which can travel."""
        return Operations.of(self.graph, self.constants, self.shapes, self.form, self.kinds)

    def live(self, cut: int) -> list[fx.Node]:
        """Return the values made before a cut and used after it, in the order they are made."""
        before = [n for n in self.graph.nodes if n.op == "placeholder"] + list(self.nodes[:cut])
        return [n for n in before if self._last_use[n] >= cut and n not in self.anywhere]

    @cached_property
    def anywhere(self) -> frozenset[fx.Node]:
        """The operations that any stage can make for itself."""
        return frozenset(_anywhere(self.graph, self.constants))

    @cached_property
    def _last_use(self) -> dict[fx.Node, int]:
        """Return the position of the last operation that needs a value; the output comes after all."""
        position = {node: i for i, node in enumerate(self.nodes)}
        end = len(self.nodes)
        last: dict[fx.Node, int] = {}
        for node in reversed(self.graph.nodes):
            # What can be made anywhere is made where it is needed, and needs what it is made of there.
            users = (
                last[u] if u in self.anywhere else position.get(u, end) for u in node.users if u.target is not holds
            )
            last[node] = max(users, default=-1)
        return last

    def name(self, cut: int) -> str:
        """Name a cut by the outermost module that begins there, or else by the operation it precedes."""
        return next(iter(self._beginning(cut)), _operation(self.nodes[cut]))

    def begins(self, cut: int) -> bool:
        """Return whether a module begins there."""
        return bool(self._beginning(cut))

    def _beginning(self, cut: int) -> list[str]:
        return [path for path in _called(self.nodes[cut]) if self._positions.get(path) == cut]

    def find(self, name: str) -> int:
        """Return the cut before the first operation of a module, or before an operation, of that name.

        Raises:
            ConfigError: there is none.
        """
        if name in self._positions:
            return self._positions[name]
        places = range(1, len(self.nodes))
        modules = [self.name(i) for i in places if self.begins(i)]
        known = ", ".join(dict.fromkeys(modules or [self.name(i) for i in places]))
        raise ConfigError(f"the model has no such module or operation (cut: {name!r}); there are: {known}")

    @cached_property
    def _positions(self) -> dict[str, int]:
        """Return the first operation of that very name, or else of a module of that name."""
        found: dict[str, int] = {}
        for i, node in enumerate(self.nodes):
            for path in itertools.chain.from_iterable(map(_around, _called(node))):
                found.setdefault(path, i)
        for i, node in enumerate(self.nodes):
            found[_operation(node)] = found[node.name] = i
        return found

    def owned(self, start: int, stop: int) -> list[str]:
        """Return the names of the parameters and buffers that the operations ``start..stop-1`` use.

        The last operation counts for the output too, since what the model returns is read in the last stage.
        """
        names: dict[str, None] = {}
        returning = self.graph.find_nodes(op="output") if stop == len(self.nodes) else []
        for node in [*self.nodes[start:stop], *returning]:
            if node.op == "call_module":
                module = self.model.get_submodule(str(node.target))
                tensors = [*module.named_parameters(), *module.named_buffers()]
                names.update(dict.fromkeys(f"{node.target}.{n}" for n, _ in tensors))
            fetched = (n for n in node.all_input_nodes if n.op == "get_attr")
            names.update(dict.fromkeys(str(n.target) for n in fetched if n.target not in self.constants))
        # By identity: what is tied has one owner, whichever of its names is used.
        known = self._names
        found = (attribute(self.model, n) for n in names)
        return list(dict.fromkeys(known[id(t)] for t in found if id(t) in known))

    @cached_property
    def _names(self) -> dict[int, str]:
        """Return the names of parameters and buffers, by identity."""
        return {id(t): n for n, t in [*self.model.named_parameters(), *self.model.named_buffers()]}

    def stage(self, start: int, stop: int, kind: int | None = None) -> fx.GraphModule:
        """Build the module of operations ``start..stop-1``, sharing its parameters with the model.

        Its inputs are the live values of cut ``start``, its outputs those of cut ``stop``: a tensor, or a tuple; of the
        last stage what the model returns.  Where batches are of several kinds, what crosses a cut is marked.
        Parameters keep the names they have in the model, and modules the mode that they are in.
        """
        graph = fx.Graph()
        env = self._taken(graph, start)
        marks = [] if kind is None else [kind]
        if start and marks:
            graph.placeholder("mark")

        def local(node: fx.Node) -> fx.Node:
            # Parameters are read by each stage that uses them; only what operations have made crosses a cut.
            if node not in env and node.op == "get_attr":
                env[node] = self._fetched(graph, node)
            elif node not in env:
                assert node in self.anywhere
                env[node] = graph.node_copy(node, local)
            return env[node]

        for node in self.nodes[start:stop]:
            if node not in self.anywhere:
                env[node] = graph.node_copy(node, local)
        if stop == len(self.nodes):
            (output,) = self.graph.find_nodes(op="output")
            graph.output(graph.call_module(RETURNED, fx.map_arg(output.args[0], local)))
        else:
            crossing = [self._given(graph, local, n) for n in self.live(stop)]
            made = (*crossing, *(graph.call_function(mark, (kind,)) for kind in marks))
            graph.output(made if len(made) > 1 else made[0])
        constants = {name: Constant(tensor) for name, tensor in self.constants.items()}
        return self.module(graph, {**constants, RETURNED: Returned(self.form)})

    def asks(self) -> fx.GraphModule | None:
        """Build the module that tells of the inputs of a batch whether it is one for which the model was captured.

        It returns truths, each of shape (); None where nothing is asked of values.
        """
        ends = [n for n in self.graph.nodes if n.target is holds]
        if not ends:
            return None
        graph = fx.Graph()
        env = {node: graph.placeholder(node.name) for node in self.graph.find_nodes(op="placeholder")}
        needed = set().union(*(reached(n, lambda one: one.all_input_nodes) for n in ends)) - {*env, *ends}
        for node in self.graph.nodes:
            if node in needed:
                fetched = node.op == "get_attr"
                env[node] = self._fetched(graph, node) if fetched else graph.node_copy(node, env.__getitem__)
        graph.output(tuple(env[n.all_input_nodes[0]] for n in ends))
        return self.module(graph, {name: Constant(tensor) for name, tensor in self.constants.items()})

    def foresees(self, inputs: Tensors) -> bool:
        """Return whether the model was captured for such a batch.

        Args:
            inputs: its tensors.
        """
        asks = self.asks()
        return shapes_of(inputs) == tuple(map(tuple, self.shapes)) and (asks is None or all(asks(*inputs)))

    def _fetched(self, graph: fx.Graph, node: fx.Node) -> fx.Node:
        """Return a parameter, a buffer or a constant in the graph of a stage."""
        path = str(node.target)
        return graph.call_module(path) if path in self.constants else graph.node_copy(node)

    def crossing(self, cut: int, values: Mapping[str, Any]) -> list[Tensor]:
        """Return what crosses a cut.

        Args:
            cut: the place.
            values: of every operation, by name.
        """
        return [as_real(values[n.name]) if n.name in self.kinds.complexes else values[n.name] for n in self.live(cut)]

    def _taken(self, graph: fx.Graph, start: int) -> dict[fx.Node, fx.Node]:
        """Return what the values are in a stage that it takes from elsewhere."""
        inputs = self.live(start) if start else self.graph.find_nodes(op="placeholder")
        env = {node: graph.placeholder(node.name) for node in inputs}
        if start:
            return {node: self._found(graph, node, taken) for node, taken in env.items()}
        pairs = zip(env.items(), self.shapes, strict=True)
        return {node: graph.call_function(of_shape, (taken, shape)) for (node, taken), shape in pairs}

    def _found(self, graph: fx.Graph, node: fx.Node, taken: fx.Node) -> fx.Node:
        """Return a value as it was before it crossed a cut."""
        if node.name in self.kinds.still:
            # Whoever takes it asks for a gradient, and kernels choose by that how they sum.
            taken = graph.call_method("detach", (taken,))
        return graph.call_function(torch.view_as_complex, (taken,)) if node.name in self.kinds.complexes else taken

    def _given(self, graph: fx.Graph, local: Callable[[fx.Node], fx.Node], node: fx.Node) -> fx.Node:
        return graph.call_function(as_real, (local(node),)) if node.name in self.kinds.complexes else local(node)

    def module(self, graph: fx.Graph, constants: Mapping[str, object]) -> fx.GraphModule:
        """Build the module of some operations, sharing its parameters with the model.

        Args:
            graph: of the operations.
            constants: what stands there for those of the chain.
        """
        holder = nn.Module()  # has all that the model has, and the constants in its place
        vars(holder).update({**vars(self.model), **constants})
        return fx.GraphModule(holder, graph, class_name="Stage")


def mark(kind: int) -> Tensor:
    """Return a tensor without content whose shape tells stages above of which kind a batch is."""
    return torch.empty(kind, 0, dtype=torch.uint8)


def as_real(tensor: Tensor) -> Tensor:
    """Return complex numbers as pairs of real ones, shape (..., 2)."""
    return torch.view_as_real(tensor.resolve_conj())


def _called(node: fx.Node) -> list[str]:
    """Return the paths of the modules that an operation is of, the outermost first."""
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
    return [*stack, str(node.target)] if node.op == "call_module" else stack


def _around(path: str) -> list[str]:
    """Return the paths of a module and of all that it lies in; a list of blocks is never called itself."""
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def _operation(node: fx.Node) -> str:
    """Return an operation's name within the innermost module that it is of."""
    stack = _called(node)
    return f"{stack[-1]}.{node.name}" if stack and node.op != "call_module" else node.name


def _anywhere(graph: fx.Graph, constants: Mapping[str, Tensor]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for node in graph.nodes:
        constant = node.op == "get_attr" and str(node.target) in constants
        if constant or (repeatable(node) and found.issuperset(node.all_input_nodes)):
            found.add(node)
        elif _changing(node):
            for changed in found.intersection(node.all_input_nodes):
                found.difference_update(_sharing(changed))
    return {node for node in found if node.op != "get_attr"}


def repeatable(node: fx.Node) -> bool:
    """Return whether an operation makes the same of the same, and does nothing else."""
    target = innermost(node.target)
    if isinstance(target, torch._ops.OpOverload):
        drawn = torch.Tag.nondeterministic_seeded in target.tags
        return not (drawn or target._schema.is_mutable)
    return node.op == "call_function" and target is getattr


def _changing(node: fx.Node) -> bool:
    """Return whether an operation may change what it is given."""
    target = innermost(node.target)
    return not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable


def _sharing(node: fx.Node) -> set[fx.Node]:
    """Return a value, all that it is made of, and all that is made of these: what may share its memory."""
    made = reached(node, lambda n: [m for m in n.all_input_nodes if m.target is not getattr])
    return {n for one in made for n in reached(one, lambda n: list(n.users))}


def reached(node: fx.Node, neighbours: Callable[[fx.Node], Sequence[fx.Node]]) -> set[fx.Node]:
    """Return an operation and all that is reached from it over neighbours."""
    found, waiting = {node}, [node]
    while waiting:
        new = set(neighbours(waiting.pop())) - found
        found |= new
        waiting.extend(new)
    return found


def attribute(model: nn.Module, path: str) -> Any:
    """Return what a module in a model holds.

    Args:
        model: with its parts.
        path: of the module, and the name there.
    """
    owner, _, name = path.rpartition(".")
    return getattr(model.get_submodule(owner), name)
