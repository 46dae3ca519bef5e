"""A model as a list of single operations, and the places where it can be cut into stages.

Does not know: costs, groups, messages.

Tracing is torch.fx.  Values that cross a cut and are used later than in the next stage travel through the stages in
between, so skip connections need no care: a stage is any contiguous part of the list.
"""

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError

_IN_PLACE_OPERATORS = {
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod, operator.ipow,
}  # fmt: skip


class _Opaque(Exception):
    """A module whose forward cannot be followed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _Tracer(fx.Tracer):
    """Trace into a user's modules; keep torch's own layers, and ``leaves``, whole."""

    def __init__(self, leaves: set[str]) -> None:
        super().__init__()
        self._leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except _Opaque:
            raise
        except Exception as problem:  # the forward ran on stand-ins: anything can be raised
            raise _Opaque(self.path_of_module(m)) from problem


def _follow(model: nn.Module) -> fx.Graph:
    """Trace a model, keeping whole the innermost modules that cannot be followed."""
    leaves: set[str] = set()
    while True:
        try:
            with mock.patch.object(torch.autograd.Function, "apply", _refuse_stand_ins(torch.autograd.Function.apply)):
                return _Tracer(leaves).trace(model)
        except _Opaque as opaque:
            if opaque.path in leaves:
                raise
            leaves.add(opaque.path)


def _refuse_stand_ins(apply: Any) -> Any:
    """Make a custom autograd function fail on stand-ins, which would lose its own backward without a word."""

    def guarded(function: type, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, fx.Proxy) for a in [*args, *kwargs.values()]):
            raise TypeError(f"a custom autograd function cannot be traced (function: {function.__name__})")
        return apply.__func__(function, *args, **kwargs)

    return classmethod(guarded)


@dataclass(frozen=True)
class Chain:
    """A traced model.

    Attributes:
        model: the model that was traced.
        graph: its operations.
        nodes: the operations that compute, in order; cut ``i`` lies before node ``i``.
    """

    model: nn.Module
    graph: fx.Graph
    nodes: tuple[fx.Node, ...]

    def live(self, cut: int) -> list[fx.Node]:
        """Return the values made before a cut and used after it, in the order they are made."""
        after = {*self.nodes[cut:], *self.graph.find_nodes(op="output")}
        before = [n for n in self.graph.nodes if n.op == "placeholder"] + list(self.nodes[:cut])
        return [n for n in before if any(user in after for user in n.users)]

    def name(self, cut: int) -> str:
        """Name a cut by the operation it precedes."""
        node = self.nodes[cut]
        alone = node.op == "call_module" and sum(n.target == node.target for n in self.nodes) == 1
        return str(node.target) if alone else node.name

    def find(self, name: str) -> int:
        """Return the cut before the first operation of a module, or before an operation, of that name.

        Raises:
            ConfigError: there is none.
        """
        for i, node in enumerate(self.nodes):
            if node.name == name or any(p == name or p.startswith(name + ".") for p in _paths(node)):
                return i
        known = ", ".join(dict.fromkeys(self.name(i) for i in range(1, len(self.nodes))))
        raise ConfigError(f"no operation of the model has this name (cut: {name!r}); there are: {known}")

    def owned(self, start: int, stop: int) -> list[str]:
        """Return the names of the parameters that the operations ``start..stop-1`` use."""
        names: dict[str, None] = {}
        for node in self.nodes[start:stop]:
            if node.op == "call_module":
                module = self.model.get_submodule(str(node.target))
                names.update(dict.fromkeys(f"{node.target}.{n}" for n, _ in module.named_parameters()))
            fetched = (n for n in node.all_input_nodes if n.op == "get_attr")
            names.update(dict.fromkeys(str(n.target) for n in fetched))
        parameters = {id(p): n for n, p in self.model.named_parameters()}
        found = (_attribute(self.model, n) for n in names)
        return list(dict.fromkeys(parameters[id(p)] for p in found if isinstance(p, nn.Parameter)))

    def stage(self, start: int, stop: int) -> fx.GraphModule:
        """Build the module of operations ``start..stop-1``, sharing its parameters with the model.

        Its inputs are the live values of cut ``start``, its outputs those of cut ``stop``: a tensor, or a tuple.
        Parameters keep the names they have in the model.
        """
        graph = fx.Graph()
        first = start == 0
        inputs = [n for n in self.graph.nodes if n.op == "placeholder"] if first else self.live(start)
        env = {node: graph.placeholder(node.name) for node in inputs}

        def local(node: fx.Node) -> fx.Node:
            if node.op == "get_attr" and node not in env:
                env[node] = graph.node_copy(node)
            return env[node]

        for node in self.nodes[start:stop]:
            env[node] = graph.node_copy(node, local)
        if stop == len(self.nodes):
            (output,) = self.graph.find_nodes(op="output")
            graph.output(fx.map_arg(output.args[0], local))
        else:
            made = tuple(local(n) for n in self.live(stop))
            graph.output(made if len(made) > 1 else made[0])
        return fx.GraphModule(self.model, graph, class_name="Stage")


def trace(model: nn.Module) -> Chain:
    """Trace a model into single operations; a module whose forward cannot be followed is one operation.

    Raises:
        ConfigError: torch.fx cannot follow the outermost forward.
    """
    try:
        graph = _follow(model)
    except Exception as problem:  # tracing runs the user's code on stand-ins: anything can be raised
        raise ConfigError(
            f"the model's forward cannot be traced (model: {type(model).__name__}): {problem}; move what depends "
            "on values into a module of its own, which is then kept whole"
        ) from problem
    nodes = tuple(n for n in graph.nodes if n.op.startswith("call_"))
    if not nodes:
        raise ConfigError(f"the model computes nothing (model: {type(model).__name__})")
    return Chain(model, graph, nodes)


class Values(fx.Interpreter):
    """Run a traced model once and remember every value, by node."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(fx.GraphModule(chain.model, chain.graph), garbage_collect_values=False)
        self.by_name: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation."""
        result = super().run_node(n)
        self.by_name[n.name] = result
        return result


def valid_cuts(chain: Chain, values: dict[str, Any]) -> list[int]:
    """Return the cuts across which only tensors travel that nobody changes in place afterwards.

    Args:
        chain: a traced model.
        values: of every node, from one run.
    """
    victims = [(i, _storage(values[v.name])) for i, n in enumerate(chain.nodes) if (v := _victim(chain, n))]

    def valid(cut: int) -> bool:
        crossing = [values[n.name] for n in chain.live(cut)]
        if not all(isinstance(v, Tensor) for v in crossing):
            return False
        changed = {storage for i, storage in victims if i >= cut}
        return bool(crossing) and not any(_storage(v) in changed for v in crossing)

    return [i for i in range(1, len(chain.nodes)) if valid(i)]


def is_in_place(chain: Chain, node: fx.Node) -> bool:
    """Return whether an operation changes its first argument."""
    if node.kwargs.get("inplace"):
        return True
    if node.op == "call_module":
        return bool(getattr(chain.model.get_submodule(str(node.target)), "inplace", False))
    if node.target in _IN_PLACE_OPERATORS:
        return True
    target: str | Callable[..., Any] = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _victim(chain: Chain, node: fx.Node) -> fx.Node | None:
    first = next(iter(node.args), None)
    return first if is_in_place(chain, node) and isinstance(first, fx.Node) else None


def _storage(value: Any) -> int | None:
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else None


def _paths(node: fx.Node) -> list[str]:
    stack = node.meta.get("nn_module_stack", {})
    own = [str(node.target)] if node.op == "call_module" else []
    return own + [path for path, _ in stack.values()]


def _attribute(model: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(model.get_submodule(owner), name)


@torch.no_grad()
def run(chain: Chain, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """Run the model on one batch and return the value of every node, by name.

    Raises:
        ConfigError: the model does not accept the data, its output is not a tensor or a tuple of tensors, or the
            traced operations compute something else than the model does.
    """
    values = Values(chain)
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(0)
            expected = copy.deepcopy(chain.model)(*inputs)
        except Exception as problem:
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
            raise ConfigError(
                f"the model does not accept a batch of the data (shapes: {shapes}): {problem}"
            ) from problem
        parts = _parts(expected)
        torch.manual_seed(0)
        traced = _parts(values.run(*inputs))
    if not all(torch.equal(a, b) for a, b in zip(parts, traced, strict=True)):
        raise ConfigError(
            f"tracing changes what the model computes (model: {type(chain.model).__name__}): its forward depends on "
            "values; put that part into a function marked with torch.fx.wrap"
        )
    return values.by_name


def _parts(output: Any) -> tuple[Tensor, ...]:
    parts = output if isinstance(output, tuple) else (output,)
    for part in parts:
        if not isinstance(part, Tensor):
            raise ConfigError(
                f"the model's output must be a tensor or a tuple of tensors (it is: {type(output).__name__})"
            )
    return parts
