"""The capture of any model as a chain of operations: by torch.fx, by torch.export, or as blocks that the user names.

Does not know: where a model is cut, costs, groups.

torch.fx keeps modules as they are wherever it can, with their hooks and their names, so it is asked first.  It is taken
unless it refuses the model, or keeps a large part of it in one piece; then torch.export is tried, and taken if there
are more places to cut.  Sizes decide, and no times, so that all processes find the same.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors
from stalegrid.partition.blocks import chain_of
from stalegrid.partition.chain import Chain
from stalegrid.partition.export import export
from stalegrid.partition.operations import Kinds
from stalegrid.partition.settling import settled
from stalegrid.partition.trace import trace
from stalegrid.partition.trial import Trial, run, valid_cuts


@dataclass(frozen=True)
class Capture:
    """A captured model that computes what the model computes.

    Args:
        by: what captured it.
        chain: its operations.
        trial: one run of them.
    """

    by: str
    chain: Chain
    trial: Trial

    @cached_property
    def places(self) -> list[int]:
        """Where it can be cut."""
        return valid_cuts(self.chain, self.trial)

    @cached_property
    def whole(self) -> dict[str, int]:
        """Modules with others in them that are one operation, by path: their parameters' elements."""
        calls = (str(n.target) for n in self.chain.nodes if n.op == "call_module")
        modules = {path: self.chain.model.get_submodule(path) for path in calls}
        return {path: size_of(m) for path, m in modules.items() if any(True for _ in m.children())}


def size_of(module: nn.Module) -> int:
    """Return the elements of a module's parameters."""
    return sum(p.numel() for p in module.parameters())


def captures(
    model: nn.Module, inputs: Tensors, form: Form | None, blocks: Sequence[str] | None, stages: int
) -> "Iterator[Capture | ConfigError]":
    """Yield captures of a model, the best first, and what refused it that would have been asked.

    Args:
        model: in training mode; it runs on.
        inputs: the tensors of one batch.
        form: how the model is called with them; None for one by one.
        blocks: parts that are called in turn; None to follow the forward.
        stages: into which it is to be cut.
    """
    if blocks is not None:
        yield _tried("blocks", partial(chain_of, model, blocks, inputs), inputs, form)
        return
    followed = _tried("torch.fx", partial(trace, model, inputs, form), inputs, form)
    if isinstance(followed, Capture) and not coarse(followed, stages):
        yield followed
        exported = _tried("torch.export", partial(export, model, inputs, form), inputs, form)
        yield from [exported] if isinstance(exported, Capture) else []
        return
    exported = _tried("torch.export", partial(export, model, inputs, form), inputs, form)
    # What refused it is told in any case; sorted is stable: of equals the first.
    yield from sorted((followed, exported), key=lambda c: -len(c.places) if isinstance(c, Capture) else -math.inf)


def coarse(capture: Capture, stages: int) -> bool:
    """Return whether a module that is kept whole, though it has parts, holds half a stage's share of the model."""
    return max(capture.whole.values(), default=0) * 2 * stages > size_of(capture.chain.model)


def _tried(by: str, make: Callable[[], Chain], inputs: Tensors, form: Form | None) -> Capture | ConfigError:
    try:
        chain = make()
        trial = run(chain, inputs, form)
    except ConfigError as problem:
        return problem
    chain = dataclasses.replace(settled(chain, trial), kinds=kinds_of(trial))
    return Capture(by, chain, dataclasses.replace(trial, places={n.name: i for i, n in enumerate(chain.nodes)}))


def kinds_of(trial: Trial) -> Kinds:
    """Return what the values of a model are like that was run."""
    complexes = (name for name, v in trial.values.items() if isinstance(v, Tensor) and v.is_complex())
    return Kinds(frozenset(complexes), frozenset(trial.values.keys() - trial.learning))
