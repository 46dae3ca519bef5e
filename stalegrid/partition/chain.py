"""A model as a list of single operations, of which a stage is any contiguous part.

Does not know: how the list was made, costs, groups, messages.

Values that cross a cut and are used later than in the next stage travel through the stages in between, so skip
connections need no care.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.partition.operations import Operations


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
            f"a batch has another shape than the one that the model was cut for (shape: {tuple(batch.shape)}, first "
            f"batch: {tuple(shape)}); let all samples have the same shape, or train with one stage"
        )
    return batch


@dataclass(frozen=True)
class Chain:
    """A traced model.

    Attributes:
        model: the model that was traced.
        graph: its operations.
        constants: tensors of the graph that are no parameters or buffers of the model, by the name they have there.
        shapes: of the inputs, on which operations may depend.
    """

    model: nn.Module
    graph: fx.Graph
    constants: dict[str, Tensor]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def read(cls, operations: Operations, model: nn.Module) -> "Chain":
        """Let a copy of the model have the operations that were traced elsewhere."""
        return cls(model, operations.graph(), operations.constants, operations.shapes)

    @cached_property
    def nodes(self) -> tuple[fx.Node, ...]:
        """The operations that compute, in order; cut ``i`` lies before node ``i``."""
        return tuple(n for n in self.graph.nodes if n.op.startswith("call_"))

    @property
    def operations(self) -> Operations:
        """The chain without the model, which can travel."""
        return Operations.of(self.graph, self.constants, self.shapes)

    def live(self, cut: int) -> list[fx.Node]:
        """Return the values made before a cut and used after it, in the order they are made."""
        after = {*self.nodes[cut:], *self.graph.find_nodes(op="output")}
        before = [n for n in self.graph.nodes if n.op == "placeholder"] + list(self.nodes[:cut])
        return [n for n in before if any(user in after for user in n.users)]

    def name(self, cut: int) -> str:
        """Name a cut by the operation it precedes."""
        node = self.nodes[cut]
        path = str(node.target) if node.op == "call_module" else node.name
        # A module that is called twice is one name for two places; the second goes by its operation.
        return path if self._position(path) == cut else node.name

    def find(self, name: str) -> int:
        """Return the cut before the first operation of a module, or before an operation, of that name.

        Raises:
            ConfigError: there is none.
        """
        found = self._position(name)
        if found is not None:
            return found
        known = ", ".join(dict.fromkeys(self.name(i) for i in range(1, len(self.nodes))))
        raise ConfigError(f"no operation of the model has this name (cut: {name!r}); there are: {known}")

    def _position(self, name: str) -> int | None:
        """Return the first node of that very name, or else of a module of that name."""
        named = (i for i, node in enumerate(self.nodes) if node.name == name)
        inside = (i for i, n in enumerate(self.nodes) if any(p == name or p.startswith(name + ".") for p in _paths(n)))
        return next(named, next(inside, None))

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
        known = {id(t): n for n, t in [*self.model.named_parameters(), *self.model.named_buffers()]}
        found = (_attribute(self.model, n) for n in names)
        return list(dict.fromkeys(known[id(t)] for t in found if id(t) in known))

    def stage(self, start: int, stop: int) -> fx.GraphModule:
        """Build the module of operations ``start..stop-1``, sharing its parameters with the model.

        Its inputs are the live values of cut ``start``, its outputs those of cut ``stop``: a tensor, or a tuple.
        Parameters keep the names they have in the model, and modules the mode that they are in.
        """
        graph = fx.Graph()
        inputs = self.live(start) if start else self.graph.find_nodes(op="placeholder")
        env = {node: graph.placeholder(node.name) for node in inputs}
        if not start:
            env = {
                node: graph.call_function(of_shape, (taken, shape))
                for (node, taken), shape in zip(env.items(), self.shapes, strict=True)
            }

        def local(node: fx.Node) -> fx.Node:
            # Parameters are read by each stage that uses them; only what operations have made crosses a cut.
            if node.op == "get_attr" and node not in env:
                path = str(node.target)
                env[node] = graph.call_module(path) if path in self.constants else graph.node_copy(node)
            return env[node]

        for node in self.nodes[start:stop]:
            env[node] = graph.node_copy(node, local)
        if stop == len(self.nodes):
            (output,) = self.graph.find_nodes(op="output")
            graph.output(fx.map_arg(output.args[0], local))
        else:
            made = tuple(local(n) for n in self.live(stop))
            graph.output(made if len(made) > 1 else made[0])
        return self.module(graph, {name: Constant(tensor) for name, tensor in self.constants.items()})

    def module(self, graph: fx.Graph, constants: Mapping[str, object]) -> fx.GraphModule:
        """Build the module of some operations, sharing its parameters with the model.

        Args:
            graph: of the operations.
            constants: what stands there for those of the chain.
        """
        holder = nn.Module()  # has all that the model has, and the constants in its place
        vars(holder).update({**vars(self.model), **constants})
        return fx.GraphModule(holder, graph, class_name="Stage")


def _paths(node: fx.Node) -> list[str]:
    stack = node.meta.get("nn_module_stack", {})
    own = [str(node.target)] if node.op == "call_module" else []
    return own + [path for path, _ in stack.values() if path]


def _attribute(model: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(model.get_submodule(owner), name)
