"""A model as a list of single operations, and the places where it can be cut into stages.

Does not know: costs, groups, messages.

Tracing is torch.fx.  Values that cross a cut and are used later than in the next stage travel through the stages in
between, so skip connections need no care: a stage is any contiguous part of the list.
"""

import copy
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError
from stalegrid.seeds import drawing

CPU = torch.device("cpu")


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
        self._gradients = torch.is_grad_enabled()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            with _without_effects(m):
                return super().call_module(m, forward, args, kwargs)
        except _Opaque:
            raise
        except Exception as problem:  # the forward ran on stand-ins: anything can be raised
            raise _Opaque(self.path_of_module(m)) from problem

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        if torch.is_grad_enabled() != self._gradients:
            raise TypeError("gradients are switched off in a part of the forward, which cannot be traced")
        return super().create_node(kind, *args, **kwargs)


@contextmanager
def _without_effects(module: nn.Module) -> Iterator[None]:
    """Refuse a forward that draws or remembers while it is traced: that would happen now, and never again."""
    drawn, remembered = _generators(), _plain_values(module)
    with _unchanged_tensors(module):
        yield
    if _generators() != drawn:
        raise TypeError("the forward draws random numbers outside torch's own layers, which cannot be traced")
    if _plain_values(module) != remembered:
        raise TypeError(f"the forward changes attributes of {type(module).__name__}, which cannot be traced")


def _generators() -> tuple[bytes, object, bytes]:
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), pickle.dumps(np.random.get_state())


def _plain_values(module: nn.Module) -> dict[str, object]:
    return {k: v for k, v in vars(module).items() if isinstance(v, bool | int | float | str | None)}


@contextmanager
def _unchanged_tensors(module: nn.Module) -> Iterator[None]:
    before = {name: (tensor, tensor.data_ptr(), tensor._version) for name, tensor in _tensors(module).items()}
    yield
    after = _tensors(module)
    for name, (tensor, place, version) in before.items():
        if after.get(name) is not tensor or (tensor.data_ptr(), tensor._version) != (place, version):
            raise TypeError(f"the forward changes a parameter or buffer, which cannot be traced (name: {name})")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _follow(model: nn.Module) -> fx.Graph:
    """Trace a model, keeping whole the innermost modules that cannot be followed."""
    leaves: set[str] = set()
    guard = _refuse_stand_ins(torch.autograd.Function.apply)
    while True:
        attempt = copy.deepcopy(model)  # a forward that cannot be followed may leave it changed
        try:
            with mock.patch.object(torch.autograd.Function, "apply", guard), _without_effects(attempt):
                _Tracer(leaves).trace(attempt)
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
        path = str(node.target) if node.op == "call_module" else node.name
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
        """Return the names of the parameters and buffers that the operations ``start..stop-1`` use."""
        names: dict[str, None] = {}
        for node in self.nodes[start:stop]:
            if node.op == "call_module":
                module = self.model.get_submodule(str(node.target))
                tensors = [*module.named_parameters(), *module.named_buffers()]
                names.update(dict.fromkeys(f"{node.target}.{n}" for n, _ in tensors))
            fetched = (n for n in node.all_input_nodes if n.op == "get_attr")
            names.update(dict.fromkeys(str(n.target) for n in fetched))
        known = {id(t): n for n, t in [*self.model.named_parameters(), *self.model.named_buffers()]}
        found = (_attribute(self.model, n) for n in names)
        return list(dict.fromkeys(known[id(t)] for t in found if id(t) in known))

    def stage(self, start: int, stop: int) -> fx.GraphModule:
        """Build the module of operations ``start..stop-1``, sharing its parameters with the model.

        Its inputs are the live values of cut ``start``, its outputs those of cut ``stop``: a tensor, or a tuple.
        Parameters keep the names they have in the model.
        """
        graph = fx.Graph()
        first = start == 0
        inputs = [n for n in self.graph.nodes if n.op == "placeholder"] if first else self.live(start)
        # The model's own inputs may be starred or have defaults.
        env = {node: graph.node_copy(node) if first else graph.placeholder(node.name) for node in inputs}

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
    """Trace a model, put into training mode, into single operations.

    A module whose forward cannot be followed is one operation.

    Raises:
        ConfigError: torch.fx cannot follow the outermost forward.
    """
    _check_hooks(model)
    try:
        graph = _follow(model.train())
    except Exception as problem:  # tracing runs the user's code on stand-ins: anything can be raised
        raise ConfigError(
            f"the model's forward cannot be traced (model: {type(model).__name__}): {problem}; move what depends "
            "on values into a module of its own, which is then kept whole"
        ) from problem
    nodes = tuple(n for n in graph.nodes if n.op.startswith("call_"))
    if not nodes:
        raise ConfigError(f"the model computes nothing (model: {type(model).__name__})")
    return Chain(model, graph, nodes)


@dataclass(frozen=True)
class Trial:
    """What one run of a traced model shows.

    Attributes:
        values: of every node, by name.
        changed: storage of the arguments that an operation changes in place, by name.
    """

    values: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, set[int]] = field(default_factory=dict)


class _Interpreter(fx.Interpreter):
    def __init__(self, chain: Chain) -> None:
        super().__init__(fx.GraphModule(chain.model, chain.graph), garbage_collect_values=False)
        self.trial = Trial()

    def run_node(self, n: fx.Node) -> Any:
        arguments = [v for m in n.all_input_nodes if isinstance(v := self.env[m], Tensor)]
        versions = [v._version for v in arguments]
        result = super().run_node(n)
        changed = {_storage(v) for v, version in zip(arguments, versions, strict=True) if v._version != version}
        if changed:
            self.trial.changed[n.name] = changed
        self.trial.values[n.name] = result
        return result


def valid_cuts(chain: Chain, trial: Trial) -> list[int]:
    """Return the cuts across which only real tensors travel that nobody changes in place afterwards.

    Args:
        chain: a traced model.
        trial: one run of it.
    """

    def valid(cut: int) -> bool:
        crossing = [trial.values[n.name] for n in chain.live(cut)]
        if not crossing or not all(isinstance(v, Tensor) and not v.is_complex() for v in crossing):
            return False
        changed = {storage for n in chain.nodes[cut:] for storage in trial.changed.get(n.name, ())}
        return not any(_storage(v) in changed for v in crossing)

    return [i for i in range(1, len(chain.nodes)) if valid(i)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _paths(node: fx.Node) -> list[str]:
    stack = node.meta.get("nn_module_stack", {})
    own = [str(node.target)] if node.op == "call_module" else []
    return own + [path for path, _ in stack.values()]


def _attribute(model: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(model.get_submodule(owner), name)


def run(chain: Chain, inputs: tuple[Tensor, ...]) -> Trial:
    """Run the traced model on one batch and hold it against the model itself.

    Raises:
        ConfigError: the model cannot be run, see :func:`check`, or the traced operations compute something else.
    """
    model, interpreter = copy.deepcopy(chain.model), _Interpreter(chain)
    expected = check(model, inputs)
    with torch.no_grad(), drawing(CPU, 0, "trial"):
        _compare(chain, model, expected, lambda: _parts(interpreter.run(*(x.clone() for x in inputs))))
    return interpreter.trial


@torch.no_grad()
def check(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Run a model on one batch, changing its buffers, and return its outputs.

    Raises:
        ConfigError: the model does not accept the data, its output is not a tensor or a tuple of tensors, or it
            replaces a buffer.
    """
    buffers = dict(model.named_buffers())
    with drawing(CPU, 0, "trial"):
        try:
            made = model(*(x.clone() for x in inputs))
        except Exception as problem:  # the model is the user's: anything can be raised
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
            text = f"the model does not accept a batch of the data (shapes: {shapes}): {problem}"
            raise ConfigError(text) from problem
    for name, buffer in model.named_buffers():
        if buffers[name] is not buffer:
            raise ConfigError(f"the model replaces a buffer instead of changing it in place (buffer: {name})")
    return _parts(made)


def _compare(
    chain: Chain, model: nn.Module, expected: tuple[Tensor, ...], traced: Callable[[], tuple[Tensor, ...]]
) -> None:
    try:
        found, problem = traced(), "its outputs differ"
    except Exception as error:  # a branch that the data would not have taken can raise anything
        found, problem = (), str(error)
    pairs = [*zip(expected, found, strict=False), *zip(model.buffers(), chain.model.buffers(), strict=True)]
    if len(found) != len(expected) or not all(_same(a, b) for a, b in pairs):
        raise ConfigError(
            f"tracing changes what the model computes (model: {type(model).__name__}): {problem}; where the forward "
            "depends on values or on arguments that are left out, put that part into a function marked with "
            "torch.fx.wrap"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _check_hooks(model: nn.Module) -> None:
    hooked = [f"module {name or 'itself'}" for name, m in model.named_modules() if m._backward_hooks]
    if hooked:
        raise ConfigError(f"hooks on gradients would be lost when the model is cut (on: {hooked[0]}); remove them")


def _parts(output: Any) -> tuple[Tensor, ...]:
    parts = output if isinstance(output, tuple) else (output,)
    for part in parts:
        if not isinstance(part, Tensor):
            raise ConfigError(
                f"the model's output must be a tensor or a tuple of tensors (it is: {type(output).__name__})"
            )
    return parts
