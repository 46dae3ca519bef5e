"""The capture of a model by torch.export, which follows forwards that torch.fx cannot.

Does not know: where a model is cut, costs, groups, messages.

torch.export runs the forward once, on stand-ins that are tensors without content: whatever depends on shapes alone is
settled, whatever depends on values is refused.  In training mode and without decompositions its operations are those
that the forward calls, so results are the same to the bit.

It sees the calls of operators alone.  What else a forward does would happen once, or lose its meaning; so here are
refused: a backward of its own, hooks, checkpoints, a change of what modules hold, draws that are not torch's.  As with
torch.fx, a forward that prints, or fills a list of the script, does so once.
"""

import contextlib
import io
import logging
import operator
import pickle
import random
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.export.graph_signature import InputKind, OutputKind

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Held, Tensors, call, changes, copied, held
from stalegrid.partition.asking import answering, asks, heard, holds
from stalegrid.partition.chain import Chain, attribute, reached, repeatable
from stalegrid.partition.draws import another
from stalegrid.partition.following import refused, refusing
from stalegrid.partition.outputs import parted
from stalegrid.partition.regions import Autocast, Gradients, Within, innermost
from stalegrid.partition.trial import check
from stalegrid.seeds import kept

CPU = torch.device("cpu")

DEVICE = "_device"
"""A constant without elements that is where its stage is: devices that operations name are asked of it."""


class _Whole(nn.Module):
    """A model that takes and returns tensors, one by one, and tells the form of what it returned."""

    def __init__(
        self,
        model: nn.Module,
        form: Form | None,
        tell: Callable[[Form], object],
        surroundings: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self.model = model
        self._form = form
        self._tell = tell
        self._surroundings = surroundings

    def forward(self, *tensors: Tensor) -> Tensors:
        # Here, because torch.export puts back what modules held.
        before = _attributes(self.model)
        with self._surroundings():
            form, made = parted(call(self.model, self._form, tensors))
        changed = changes(before, _attributes(self.model))
        if changed:
            raise TypeError(f"the forward changes what the model holds ({changed[0]})")
        self._tell(form)
        return made


def export(model: nn.Module, inputs: Tensors, form: Form | None = None) -> Chain:
    """Capture a model by torch.export, as it runs where nobody follows it; if that cannot be, as it runs then.

    Args:
        model: in the mode in which it will run; left as it is.
        inputs: the tensors of one batch, on whose shapes operations may depend.
        form: how the model is called with them; None for one by one.

    Raises:
        ConfigError: it cannot be followed.
    """
    attempt = _begun(model, inputs, form)
    with contextlib.suppress(Exception):  # whatever is in the way is told of the second attempt
        answers = heard(copied(attempt), inputs, form)
        return _exported(model, copied(attempt), inputs, form, partial(answering, answers))
    try:
        return _exported(model, attempt, inputs, form, contextlib.nullcontext)
    except ConfigError:
        raise
    except Exception as problem:  # the forward ran on stand-ins: anything can be raised
        raise refused(model, "torch.export", problem) from problem


def _exported(
    model: nn.Module,
    attempt: nn.Module,
    inputs: Tensors,
    form: Form | None,
    surroundings: Callable[[], AbstractContextManager[None]],
) -> Chain:
    returned: list[Form] = []
    whole = _Whole(attempt, form, returned.append, surroundings)
    with kept(CPU), warnings.catch_warnings(), _watched():
        warnings.simplefilter("ignore")  # of what torch.export thinks of models
        program = torch.export.export(whole, tuple(x.clone() for x in inputs), strict=False)
    return _Reader(model, attempt, program).chain(inputs, returned[-1])


def _begun(model: nn.Module, inputs: Tensors, form: Form | None) -> nn.Module:
    """Return a copy of a model; where a first forward only hangs hooks and notes it in flags, one that has done so."""
    attempt = copied(model)
    before = _attributes(attempt)
    check(attempt, another(model, inputs, form), form)
    after = _attributes(attempt)
    # A value that is kept would be that of one batch; so what else changes is left to be refused.
    changed = changes(before, after)
    return attempt if all(_HOOKS.fullmatch(name) or after[name][0] is True for name in changed) else copied(model)


_HOOKS = re.compile(r"(.*\.)?_forward_(pre_)?hooks\w*")
"""Names of what has the hooks of a forward in it."""


def _attributes(module: nn.Module) -> Held:
    """Return what a module holds beside parameters and buffers, whose changes are operations."""
    tensors = {id(t) for m in module.modules() for t in [*m._parameters.values(), *m._buffers.values()]}
    return {name: values for name, values in held(module).items() if id(values[0]) not in tensors}


@contextmanager
def _watched() -> Iterator[None]:
    """Refuse what would be lost without a word."""
    state = random.getstate(), pickle.dumps(np.random.get_state())
    with (
        _silent(),
        mock.patch.object(torch.autograd.Function, "apply", refusing(torch.autograd.Function.apply, Tensor)),
        mock.patch.object(saved_tensors_hooks, "__enter__", _refuse("checkpoints or offloads activations")),
        mock.patch.object(Tensor, "register_hook", _refuse("hangs a hook on a tensor")),
        mock.patch.object(torch, "manual_seed", _refuse("seeds random numbers")),
        mock.patch.object(Tensor, "backward", _refuse("has a backward in it")),
        mock.patch.object(torch.autograd, "grad", _refuse("has a backward in it")),
    ):
        yield
    if state != (random.getstate(), pickle.dumps(np.random.get_state())):
        raise TypeError("the forward draws random numbers that are not torch's")


@contextmanager
def _silent() -> Iterator[None]:
    """Let torch.export not print what it could not follow, which is said in a line here."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def _refuse(what: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise TypeError(f"the forward {what}")

    return refuse


@dataclass
class _Reader:
    """Reads an exported program as a chain.

    Args:
        model: that was captured.
        attempt: the copy of it that was exported.
        program: that was made.
    """

    model: nn.Module
    attempt: nn.Module
    program: torch.export.ExportedProgram
    graph: fx.Graph = field(default_factory=fx.Graph)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def chain(self, inputs: Tensors, form: Form) -> Chain:
        """Return what was read."""
        self._device = self.graph.call_function(getattr, (self._constant(DEVICE, torch.empty(0)), "device"))
        env = self._inputs()
        program = self.program.graph_module
        made = self._read(program, env, (), {})
        for output in self.program.graph_signature.output_specs:
            if output.kind is not OutputKind.USER_OUTPUT:
                raise TypeError(f"the forward returns its {output.kind.name.lower()} ({output.target})")
        self.graph.output(tuple(made))
        self._check_questions(inputs)
        _clear(self.graph)
        shapes = tuple(x.shape for x in inputs)
        return Chain(self.model, self.graph, self.constants, shapes, form)

    def _check_questions(self, inputs: Tensors) -> None:
        """Let questions be of whole numbers and truths in the inputs alone; what shapes answer is none."""
        given = dict(zip(self.graph.find_nodes(op="placeholder"), inputs, strict=True))
        for node in list(self.graph.nodes):
            if node.target is not holds:
                continue
            sources = reached(node, lambda one: one.all_input_nodes) - {node}
            if not all(self._is_known(one, given) for one in sources):
                raise TypeError("what is done depends on the values of tensors")
            if not sources & given.keys():
                self.graph.erase_node(node)

    def _is_known(self, node: fx.Node, given: dict[fx.Node, Tensor]) -> bool:
        if node in given:
            return not (given[node].is_floating_point() or given[node].is_complex())
        return str(node.target) in self.constants if node.op == "get_attr" else repeatable(node)

    def _inputs(self) -> dict[fx.Node, Any]:
        """Return what the placeholders of the program are: inputs, parameters, buffers or constants."""
        signature = self.program.graph_signature
        # By identity: what is tied has one name, whichever torch.export has chosen.
        names = [*self.attempt.named_parameters(), *self.attempt.named_buffers()]
        known = {id(tensor): name for name, tensor in names}
        env: dict[fx.Node, Any] = {}
        placeholders = self.program.graph.find_nodes(op="placeholder")
        for node, spec in zip(placeholders, signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                env[node] = self.graph.placeholder(f"input_{len(self.graph.find_nodes(op='placeholder'))}")
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                path = str(spec.target).removeprefix("model.")
                env[node] = self.graph.get_attr(known.get(id(attribute(self.attempt, path)), path))
            elif spec.kind is InputKind.CONSTANT_TENSOR:
                constant = self.program.constants[str(spec.target)].detach().clone()
                env[node] = self._constant(f"_constant_{len(self.constants)}", constant)
            else:
                raise TypeError(f"the forward uses an object that is no tensor ({spec.target})")
        return env

    def _constant(self, name: str, tensor: Tensor) -> fx.Node:
        self.constants[name] = tensor
        return self.graph.create_node("get_attr", name)

    def _read(
        self, module: fx.GraphModule, env: dict[fx.Node, Any], regions: tuple[Gradients | Autocast, ...], stack: Any
    ) -> list[Any]:
        """Read the operations of a program, or of a region in it, and return the nodes of its outputs."""
        for node in module.graph.nodes:
            if node.op == "output":
                (found,) = node.args
                return [fx.map_arg(n, env.__getitem__) for n in found]
            if node.op == "get_attr":
                part = attribute(module, str(node.target))
                env[node] = part if isinstance(part, nn.Module) else self._constant(str(node.target), part)
            elif node.op == "call_function":
                env[node] = self._operation(node, env, regions, _stack(node) or stack)
        raise AssertionError("a graph has an output")

    def _operation(
        self, node: fx.Node, env: dict[fx.Node, Any], regions: tuple[Gradients | Autocast, ...], stack: Any
    ) -> Any:
        target: Any = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._region(node, env, regions, stack)
        if "functorch" in (getattr(target, "__module__", None) or ""):
            raise TypeError("the forward maps or transforms a function (torch.vmap, torch.func)")
        if target is operator.getitem and isinstance(env[node.args[0]], list):  # type: ignore[index]
            return env[node.args[0]][node.args[1]]  # type: ignore[index]
        if asks(node):
            return self.graph.call_function(holds, (env[node.args[0]],))  # type: ignore[index]
        for region in regions:
            target = Within(region, target)
        args: Any = fx.node.map_aggregate(fx.map_arg(node.args, env.__getitem__), self._where)
        kwargs: Any = fx.node.map_aggregate(fx.map_arg(node.kwargs, env.__getitem__), self._where)
        made = self.graph.create_node("call_function", target, args, kwargs, node.name)
        made.meta = {"nn_module_stack": stack}
        return made

    def _where(self, argument: Any) -> Any:
        return self._device if isinstance(argument, torch.device) else argument

    def _region(
        self, node: fx.Node, env: dict[fx.Node, Any], regions: tuple[Gradients | Autocast, ...], stack: Any
    ) -> list[Any]:
        """Read a part of the forward that switches gradients or autocast."""
        found: list[Any] = [env[a] if isinstance(a, fx.Node) else a for a in node.args]
        region: Gradients | Autocast
        match str(node.target), found:
            case "wrap_with_set_grad_enabled", [enabled, inner, *given]:
                region = Gradients(enabled)
            case "wrap_with_autocast", [device, dtype, enabled, _, inner, *given]:
                region = Autocast(device, dtype, enabled)
            case name, _:
                raise TypeError(f"the forward has a part that runs in a way of its own (operation: {name})")
        own = dict(zip(inner.graph.find_nodes(op="placeholder"), given, strict=True))
        return self._read(inner, own, (region, *regions), stack)


def _stack(node: fx.Node) -> dict[str, tuple[str, Any]]:
    """Return which modules of the model an operation is of, by their own paths."""
    found = node.meta.get("nn_module_stack") or {}
    # A second call of a module has a mark behind its path.
    paths = {key: (path.partition("@")[0], kind) for key, (path, kind) in found.items()}
    return {k: (p.removeprefix("model."), kind) for k, (p, kind) in paths.items() if p.startswith("model.")}


def _clear(graph: fx.Graph) -> None:
    """Take away what is only checked of shapes, which are known, and what nobody needs."""
    for node in reversed(list(graph.nodes)):
        if node.op not in ("call_function", "get_attr") or node.users:
            continue
        target = innermost(node.target)
        checks = str(target).startswith("aten._assert_tensor_metadata")
        if checks or node.op == "get_attr" or (isinstance(target, torch._ops.OpOverload) and _pure(target)):
            graph.erase_node(node)


def _pure(target: torch._ops.OpOverload) -> bool:
    drawn = torch.Tag.nondeterministic_seeded in target.tags
    return not (drawn or target._schema.is_mutable) and target._schema.returns != []
