"""A module's forward as code that torch's compiler makes of it, for each shape of its inputs, with its backward.

Does not know: views, batches, losses, which weights the module shows.

Parameters are arguments of the code: it computes with what they hold when it is called.  What it saves for its backward
goes through the hooks of saved tensors, as what any operation saves.  But it saves less, and computes the rest once
more in the backward, of the parameters that it finds there: it is exact only where they are those of its forward.

What is drawn is drawn by torch's own operations, so that it is what it would be without the compiler.
"""

import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from stalegrid.errors import TrainingError
from stalegrid.objects import Form, Shapes, Tensors, call, shapes_of


class Compiled:
    """Forwards of a module; each shape is compiled at its first forward, with as many threads as it computes with.

    Args:
        module: whose forward is taken.
        form: of its arguments; None where it takes the inputs one by one.
    """

    def __init__(self, module: nn.Module, form: Form | None) -> None:
        self._module = module
        self._form = form
        self._made: dict[Shapes, Callable[..., Any]] = {}

    def __call__(self, inputs: Tensors) -> Any:
        """Return what the module makes of its inputs.

        Raises:
            TrainingError: it cannot be compiled, or no longer as it was.
        """
        shapes = shapes_of(inputs)
        if shapes not in self._made:
            self._made[shapes] = _compiled(self._module)
        try:
            return call(self._made[shapes], self._form, inputs)
        except torch._dynamo.exc.FailOnRecompileLimitHit as problem:
            raise self._error(
                "what its code depends on is another thing at every forward; let it change nothing but buffers, and no "
                "number in an attribute"
            ) from problem
        except torch._dynamo.exc.TorchDynamoException as problem:
            raise self._error(f"{_first(problem)}; take that out of it") from problem

    def _error(self, why: str) -> TrainingError:
        what = f"(module: {type(self._module).__name__})"
        return TrainingError(f"torch cannot compile a forward in one piece {what}: {why}, or leave compile out")


def fault_of_compiler() -> str | None:
    """Return why nothing can be compiled in this process; None if it can.

    A sum is compiled, since that alone tells: the compiler of C++, the headers of Python, what torch supports.
    """
    made: list[Tensor] = []
    with torch.enable_grad():
        given = torch.ones(2, 2, requires_grad=True)
        own = _compiled(lambda x: (x * x).sum(), made.extend)
        try:
            torch._inductor.cpp_builder.get_cpp_compiler()  # else what lies on disk from before would do
            own(given)
        except Exception as problem:  # whatever lacks may show anywhere in torch
            return _first(problem)
    # As torch.compiler.set_stance, or variables of the environment, ask for it.
    return None if made else "it is told to compile nothing"


def _compiled(
    module: Callable[..., Any], told: Callable[[Sequence[Tensor]], object] = lambda _: None
) -> Callable[..., Any]:
    """Return the forward of a module, compiled when it is called, in one piece or not at all.

    Args:
        module: whose forward is taken.
        told: is called with the arguments of the code, parameters and all, when it is compiled.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        return module(*args, **kwargs)

    def made(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        told(inputs)
        return _code(graph, inputs)

    # With code of its own: torch keeps what it has compiled by the code that it was compiled of, and so much at most.
    # Units that share a process would take each other's places.
    own = FunctionType(forward.__code__.replace(), forward.__globals__, forward.__name__, None, forward.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False, backend=made)


def _code(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """Return what torch's usual compiler makes of operations and of their backward."""
    inductor, functorch = torch._inductor.config, torch._functorch.config
    options = {
        "fallback_random": True,
        "compile_threads": 1,  # else it would start processes, which nobody here would end
        "cpp.threads": torch.get_num_threads(),  # how sums are parted is written into the code, and kept on disk
        "deterministic": True,  # no choice by speed that would change numbers
    }
    # As in a plain loop, where autocast ends before the backward.
    casts = {"backward_pass_autocast": "off"}
    with (
        inductor.patch(_known(inductor, options)),
        functorch.patch(_known(functorch, casts)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # of parts of torch, about others
        # Read here, where it is told to start no processes.
        from torch._inductor.compile_fx import compile_fx

        return cast(Callable[..., Any], compile_fx(graph, inputs))


def _known(config: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that this torch has."""
    return {name: value for name, value in options.items() if hasattr(config, name)}


def _first(problem: BaseException) -> str:
    """Return the beginning of what torch says, which goes on for pages."""
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return " ".join(line.strip() for line in lines[:_LINES] if line.strip())


_LINES = 3
