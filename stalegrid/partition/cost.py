"""Measured time of every operation of a traced model.

Does not know: stages, where the model will be cut.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Thin, dense
from stalegrid.partition.chain import Chain, attribute
from stalegrid.partition.following import told
from stalegrid.partition.trial import Trial

REPEATS = 5


def measure(chain: Chain, trial: Trial) -> list[float]:
    """Time forward + backward of every operation by itself; the forward alone where nothing before it is trained.

    Args:
        chain: a traced model.
        trial: one run of it, on a batch of the real size.

    Returns:
        Seconds per node, the least of a few rounds through the model: a machine that is slow for a moment then slows
        one repeat of many operations, not all repeats of one.
    """
    rounds = [[_once(chain, node, trial) for node in chain.nodes] for _ in range(REPEATS)]
    return [min(taken) for taken in zip(*rounds, strict=True)]


def copy_seconds(tensors: list[Tensor]) -> float:
    """Time one copy of the tensors: what packing them into a message costs."""

    def copy() -> None:
        for t in tensors:
            t.clone()

    return min(_timed(copy, tensors) for _ in range(REPEATS))


def _once(chain: Chain, node: fx.Node, trial: Trial) -> float:
    leaves: list[Tensor] = []
    module = dense(chain.model.get_submodule(str(node.target))) if node.op == "call_module" else None
    owned = [] if module is None else list(module.parameters())

    def argument(n: fx.Node) -> Any:
        if n.op == "get_attr" and n.target not in chain.constants:
            own = attribute(chain.model, str(n.target))
            owned.append(nn.Parameter(own.detach().contiguous(), own.requires_grad) if isinstance(own, Thin) else own)
            return owned[-1]
        value = trial.values[n.name]
        if not isinstance(value, Tensor):
            return value
        leaf = value.detach()
        if leaf.is_floating_point() and n.name in trial.learning:  # nobody asks for other gradients
            leaves.append(leaf.requires_grad_())
        # An operation in place needs something other than a leaf to work on.
        return leaf.clone() if node.name in trial.changed else leaf

    args, kwargs = fx.map_arg(node.args, argument), fx.map_arg(node.kwargs, argument)
    output = trial.values[node.name]
    gradient = torch.ones_like(output) if isinstance(output, Tensor) else None  # in a stage, it comes from elsewhere
    # No further: arguments that are objects may hold tensors with the graph of all that was before.
    wanted = [t for t in [*leaves, *owned] if isinstance(t, Tensor) and t.requires_grad]

    def forward_backward() -> None:
        made = _call(module, node, args, kwargs)
        if isinstance(made, Tensor) and made.requires_grad and wanted:
            try:
                torch.autograd.backward(made, gradient, inputs=wanted)
            except Exception as problem:  # hooks and functions are the user's: anything can be raised
                _all_the_way(made, gradient, node, problem)

    seconds = _timed(forward_backward, leaves)
    # Else the next round would add to gradients that are there, which takes longer.
    for tensor in owned:
        tensor.grad = None
    return seconds


def _all_the_way(made: Tensor, gradient: Tensor | None, node: fx.Node, problem: Exception) -> None:
    """Repeat a backward that failed, to all that there is: a checkpoint of the reentrant kind goes there or nowhere."""
    try:
        torch.autograd.backward(made, gradient)
    except Exception:  # the same again, or that its graph is used up
        raise ConfigError(f"a backward of the model fails (operation: {node.name}): {told(problem)}") from problem


def _call(module: nn.Module | None, node: fx.Node, args: Any, kwargs: Any) -> Any:
    if node.op == "call_function":
        return node.target(*args, **kwargs)  # type: ignore[operator]
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert module is not None
    return module(*args, **kwargs)


def _timed(call: Callable[[], None], involved: list[Tensor]) -> float:
    cuda = any(t.is_cuda for t in involved)
    if cuda:
        torch.cuda.synchronize()
    # Wall time: a GPU works beside the processor, and threads beside one another.
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
