"""The tracing of a model into single operations, which refuses what a trace would silently change.

Does not know: where a model is cut, costs, groups, messages.

Tracing is torch.fx: the forward runs once, on stand-ins.  Their sizes and types are known, since every batch of a run
has the same; their values are not.  So a check of ``x.shape``, or a size read at the top and used at the end, is a
constant and crosses no cut.

Whatever the forward does beside the stand-ins would happen once, or lose its meaning: switching gradients or autocast,
checkpointing, drawing or seeding random numbers, a custom autograd function, a backward, changing what the model holds
or a tensor that the forward made, hooks on a module's gradients.  Such a module is kept whole; where it is the
outermost one the model is refused.  What leaves no mark on the model is not noticed: a forward that is followed, or a
hook, that prints or fills a list of the script does so once, when it is traced.
"""

import pickle
import random
import re
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import rnn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Held, Tensors, call, changes, copied, held
from stalegrid.partition.chain import Chain
from stalegrid.partition.following import refuse_saving, refused, refusing, told
from stalegrid.partition.outputs import parted
from stalegrid.seeds import kept

CPU = torch.device("cpu")


class _Opaque(Exception):
    """A module whose forward cannot be followed."""

    def __init__(self, path: str, problem: Exception) -> None:
        super().__init__(path)
        self.path = path
        self.problem = problem


class _Known(fx.Proxy):
    """A stand-in for a tensor of known size and type."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, tensor: Tensor) -> None:
        super().__init__(node, tracer)
        self._tensor = tensor

    @property
    def shape(self) -> torch.Size:
        return self._tensor.shape

    @property
    def ndim(self) -> int:
        return self._tensor.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self._tensor.dtype

    def size(self, *dim: int, **named: int) -> Any:
        return self._tensor.size(*dim, **named)

    def dim(self) -> int:
        return self._tensor.dim()

    def numel(self) -> int:
        return self._tensor.numel()

    def is_floating_point(self) -> bool:
        return self._tensor.is_floating_point()

    def __len__(self) -> int:
        return len(self._tensor)


class _Tracer(fx.Tracer):
    """Trace into a user's modules; keep torch's own layers, and ``leaves``, whole.

    The outermost module is called like any other, so that its hooks are followed and its defaults are its own.
    """

    def __init__(self, leaves: Collection[str], inputs: Tensors, form: Form | None) -> None:
        super().__init__(autowrap_functions=PACKING)
        self._leaves = leaves
        self._inputs = inputs
        self._form = form
        self.returned: list[Form] = []
        self._names: dict[int, str] = {}
        self._surroundings = _surroundings()

    def follow(self, model: nn.Module) -> fx.Graph:
        """Trace a model, which may come out changed."""
        self._names = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
        graph = self.trace(model)
        for node in graph.nodes:
            # Code made of the graph would have it wrapped in all traces to come, under a name that is none.
            node.meta.pop("is_wrapped", None)
        return graph

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        stand_ins = [self._known("placeholder", f"input_{i}", x) for i, x in enumerate(self._inputs)]

        def whole(model: nn.Module, *tensors: fx.Proxy) -> tuple[Any, ...]:
            form, made = parted(call(model, self._form, tensors), (fx.Proxy, Tensor))
            self.returned.append(form)
            return made

        return whole, [self.root, *stand_ins]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Take parameters and buffers for values that any forward may find changed."""
        # By identity: a tied parameter has one name, wherever the forward reads it.
        name = self._names.get(id(attr_val))
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self._known("get_attr", name, attr_val)
        return parameter_proxy_cache[name]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # The outermost module is followed, also where it is a layer of torch.
        if not module_qualified_name:
            return False
        return module_qualified_name in self._leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):  # what goes wrong with it is the doing of its caller
            return super().call_module(m, forward, args, kwargs)
        before = held(m)
        try:
            if m._backward_hooks or m._backward_pre_hooks:
                raise TypeError(f"hooks on the gradients of a module ({type(m).__name__}) cannot be traced")
            made = super().call_module(m, forward, args, kwargs)
            self._check_surroundings()
            # Tensors that the forward makes are hung onto the outermost module by torch.fx itself.
            stowed = set(self.tensor_attrs.values()) if m is self.root else set()
            _check_unchanged(m, before, stowed)
            return made
        except _Opaque:
            raise
        except Exception as problem:  # the forward ran on stand-ins: anything can be raised
            raise _Opaque(path, problem) from problem

    def create_node(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> fx.Node:
        self._check_surroundings()
        if (kind, target) in _BACKWARDS:
            raise TypeError("the forward has a backward in it, which cannot be traced")
        if kind == "call_method" and _IN_PLACE.fullmatch(target) and args[0].target in self.tensor_attrs.values():
            raise TypeError("the forward changes in place a tensor that it makes or keeps, which cannot be traced")
        return super().create_node(kind, target, args, kwargs, *more, **named)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, nn.Module):
            raise TypeError(f"a module is given to a function ({type(a).__name__}), which cannot be traced")
        if isinstance(a, torch.Generator):  # whose state is no tensor of a graph
            raise TypeError("the forward draws from a generator of its own, which cannot be traced")
        return super().create_arg(a)

    def _check_surroundings(self) -> None:
        for what, value in _surroundings().items():
            if self._surroundings[what] != value:
                raise TypeError(f"the forward {what}, which cannot be traced")

    def _known(self, kind: str, target: str, tensor: Tensor) -> Any:
        return self.create_proxy(kind, target, (), {}, proxy_factory_fn=lambda node: _Known(node, self, tensor))


PACKING = (rnn.pack_padded_sequence, rnn.pad_packed_sequence, rnn.pack_sequence)
"""What looks at lengths, which differ from batch to batch: single operations, as a recurrent layer is."""

_BACKWARDS = (
    ("call_function", torch.autograd.grad),
    ("call_function", torch.autograd.backward),
    ("call_method", "backward"),
)

_IN_PLACE = re.compile(r"__i\w+__|__setitem__|\w*[a-z0-9]_")
"""Methods of a tensor that change it."""


def _surroundings() -> dict[str, object]:
    """Return what an operation depends on besides its arguments, which a trace does not keep."""
    return {
        "switches gradients on or off": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "switches autocast on or off": [
            (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")
        ],
        "changes the default type": torch.get_default_dtype(),
        # NumPy's state holds an array, which == compares element by element; pickled, it is compared as a whole.
        "draws random numbers outside torch's own layers, or seeds them": (
            torch.get_rng_state().numpy().tobytes(),
            random.getstate(),
            pickle.dumps(np.random.get_state()),
        ),
    }


def _check_unchanged(module: nn.Module, before: Held, stowed: set[str]) -> None:
    """Refuse a forward that remembers something while it is traced: that would happen now, and never again."""
    after = {name: values for name, values in held(module).items() if name in before or name not in stowed}
    changed = changes(before, after)
    if changed:
        raise TypeError(
            f"the forward changes what the model holds, which cannot be traced ({type(module).__name__}: {changed[0]})"
        )


def _follow(model: nn.Module, inputs: Tensors, form: Form | None) -> Chain:
    """Trace a model, keeping whole the innermost modules that cannot be followed."""
    leaves: dict[str, str] = {}
    guard = refusing(torch.autograd.Function.apply, fx.Proxy)
    while True:
        # Anew after each module that turned out to be one operation: it may stand within others that can be followed.
        attempt = copied(model)  # a forward that cannot be followed may leave it changed
        try:
            with (
                # For as long as the trace lasts: torch.fx offers no place of its own to look at either.
                mock.patch.object(torch.autograd.Function, "apply", guard),
                mock.patch.object(saved_tensors_hooks, "__enter__", refuse_saving),
            ):
                tracer = _Tracer(leaves, inputs, form)
                graph = tracer.follow(attempt)
            (returned,) = tracer.returned
            shapes = tuple(x.shape for x in inputs)
            return Chain(model, graph, _constants(graph, attempt), shapes, returned, opaque=leaves)
        except _Opaque as opaque:
            if not opaque.path:
                raise opaque.problem from None
            alike = _alike(model, opaque.path) if len(leaves) >= FEW else []
            leaves.update(dict.fromkeys([opaque.path, *alike], told(opaque.problem)))


FEW = 4
"""Modules that are found one by one to be one operation; each takes a trace of its own, and a copy of the model."""


def _alike(model: nn.Module, path: str) -> list[str]:
    """Return the paths of all modules of the user's class that the one at a path is of, as blocks of a model are."""
    kind = type(model.get_submodule(path))
    own = not kind.__module__.startswith("torch.nn")
    return [name for name, module in model.named_modules() if own and name and type(module) is kind]


def _constants(graph: fx.Graph, traced: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a graph that are no parameters or buffers, and let the graph call them by new names."""
    owned = {*dict(traced.named_parameters()), *dict(traced.named_buffers())}
    names: dict[str, str] = {}
    constants: dict[str, Tensor] = {}
    for node in graph.find_nodes(op="get_attr"):
        path = str(node.target)
        if path in owned:
            continue
        name = names.setdefault(path, f"_constant_{len(names)}")
        constants[name] = attrgetter(path)(traced)
        node.target = name
    return constants


def trace(model: nn.Module, inputs: Tensors, form: Form | None = None) -> Chain:
    """Trace a model into single operations.

    A module whose forward cannot be followed is one operation.

    Args:
        model: in the mode in which it will run; left as it is.
        inputs: the tensors of one batch, whose sizes and types the operations may depend on.
        form: how the model is called with them; None for one by one.

    Raises:
        ConfigError: torch.fx cannot follow the outermost forward.
    """
    # What torch.compile wraps a model in.
    if hasattr(model, "_orig_mod"):
        raise ConfigError(
            f"a compiled model cannot be cut (model: {type(model).__name__}); give the model that was compiled, or "
            "compile parts of it, which are then kept whole"
        )
    try:
        with kept(CPU):
            chain = _follow(model, inputs, form)
    except ConfigError:
        raise
    except Exception as problem:  # tracing runs the user's code on stand-ins: anything can be raised
        raise refused(model, "torch.fx", problem) from problem
    if not chain.nodes:
        raise ConfigError(f"the model computes nothing (model: {type(model).__name__})")
    return chain
