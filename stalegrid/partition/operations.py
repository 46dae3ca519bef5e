"""The operations of a traced model as plain data, which travels between processes.

Does not know: how a model is traced, where it is cut.

A graph of torch.fx refers to a user's functions by name when it is pickled, and traces again when it is read: functions
of the script itself would be missing, and two processes might see two models.

So a model is traced once, where the plan is made, and every process builds its stages from these operations.  Where
nothing pickled travels (torchrun) every process traces for itself; then all compare what they found, operation by
operation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from stalegrid.objects import Form


@dataclass(frozen=True, slots=True)
class Made:
    """Stands among arguments for what an operation made."""

    name: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A node of a graph.

    Args:
        name: of its own in the graph.
        kind: as torch.fx calls it: placeholder, get_attr, call_function, call_method, call_module or output.
        target: function, or name of a method, or path of a module or tensor.
        args: with :class:`Made` for the values of other operations.
        kwargs: likewise.
    """

    name: str
    kind: str
    target: Callable[..., Any] | str
    args: Any
    kwargs: Any


@dataclass(frozen=True)
class Kinds:
    """What the values of a model are like, as far as it matters where they cross a cut.

    Args:
        complexes: operations that make complex numbers, by name.
        still: operations and inputs that nothing asks a gradient of, by name.
    """

    complexes: frozenset[str] = frozenset()
    still: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Operations:
    """A traced model without the model.

    Args:
        listed: in their order.
        constants: tensors that are no parameters or buffers of the model, by the name that operations give them.
        shapes: of the inputs, on which operations may depend.
        form: of what the model returns.
        kinds: of the values that cross cuts.
    """

    listed: tuple[Operation, ...]
    constants: dict[str, Tensor]
    shapes: tuple[torch.Size, ...]
    form: Form
    kinds: Kinds = Kinds()

    @classmethod
    def of(
        cls,
        graph: fx.Graph,
        constants: dict[str, Tensor],
        shapes: tuple[torch.Size, ...],
        form: Form,
        kinds: Kinds = Kinds(),
    ) -> "Operations":
        """Describe a graph."""
        return cls(cls.listed_of(graph), constants, shapes, form, kinds)

    @staticmethod
    def listed_of(graph: fx.Graph) -> tuple[Operation, ...]:
        """List the operations of a graph."""
        return tuple(
            Operation(n.name, n.op, n.target, fx.map_arg(n.args, _made), fx.map_arg(n.kwargs, _made))
            for n in graph.nodes
        )

    def graph(self) -> fx.Graph:
        """Build the graph that is described."""
        graph = fx.Graph()
        nodes: dict[str, fx.Node] = {}

        def node(value: Any) -> Any:
            return nodes[value.name] if isinstance(value, Made) else value

        for o in self.listed:
            args, kwargs = map_aggregate(o.args, node), map_aggregate(o.kwargs, node)
            nodes[o.name] = graph.create_node(o.kind, o.target, args, kwargs, o.name)
        return graph


def _made(node: fx.Node) -> Any:
    return Made(node.name)
