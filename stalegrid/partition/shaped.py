"""The stages of a model that was captured for batches of several shapes.

Does not know: how a model is captured, where it is cut, which batches there are.

A captured model has the answers that shapes give written into its operations, so every shape has operations of its own.
What they work with is the same: a stage is one module with all that any of them uses, and a forward for each shape.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import Shapes, shapes_of, shown
from stalegrid.partition.chain import RETURNED, Chain, Constant
from stalegrid.partition.operations import Operation, Operations
from stalegrid.partition.outputs import Returned
from stalegrid.programs import Layout


@dataclass(frozen=True)
class Cut:
    """A model that was captured for batches of one shape, and where it is cut.

    Args:
        chain: its operations.
        cuts: positions, ascending.
        layouts: what crosses each cut.
    """

    chain: Chain
    cuts: tuple[int, ...]
    layouts: tuple[Layout, ...]

    def stages(self) -> list[fx.GraphModule]:
        """Build the stages for batches of this shape."""
        bounds = [0, *self.cuts, len(self.chain.nodes)]
        return [self.chain.stage(start, stop) for start, stop in itertools.pairwise(bounds)]

    def inputs(self) -> list[Shapes]:
        """Return the shapes of what each stage is given."""
        return [self.chain.shapes, *(tuple(spec.shape for spec in layout) for layout in self.layouts)]


class _Parts(nn.Module):
    """A module that has what another one has, whose forward is code that copies share."""

    def __init__(self, parts: nn.Module) -> None:
        super().__init__()
        self._modules.update(parts._modules)
        self._parameters.update(parts._parameters)
        self._buffers.update(parts._buffers)
        self.training = parts.training


class Compiled(_Parts):
    """A stage for batches of one shape.

    To copy what torch.fx builds takes three times as long: it writes and compiles its code anew.

    Args:
        built: by torch.fx.
    """

    def __init__(self, built: fx.GraphModule) -> None:
        super().__init__(built)
        self._compiled = type(built).forward

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the stage makes of a batch."""
        return self._compiled(self, *tensors)


class Shaped(_Parts):
    """A stage that has a forward for each of several shapes.

    Args:
        parts: has what they use.
        forwards: by the shapes of their inputs; each is called with this module in the place of its own.
    """

    def __init__(self, parts: nn.Module, forwards: Mapping[Shapes, Callable[..., Any]]) -> None:
        super().__init__(parts)
        self._forwards = dict(forwards)

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the stage makes of a batch.

        Raises:
            TrainingError: the model was cut for no such batch.
        """
        found = self._forwards.get(shapes_of(tensors))
        if found is None:
            raise TrainingError(unforeseen(shapes_of(tensors), list(self._forwards)))
        return found(self, *tensors)


def unforeseen(shapes: Shapes, known: Sequence[Shapes], which: str = "") -> str:
    """Say that the model was cut for no such batch, and what to do.

    Args:
        shapes: of the batch.
        known: for which it was cut.
        which: batch it is, if that is known.
    """
    return (
        f"a batch has another shape than the model was cut for (shape: {shown(shapes)}, cut for: "
        f"{'; '.join(map(shown, known))}{which}); let all batches have the same shape, or each one of a few that are "
        "all in the first epoch, as collate_fn=stalegrid.pad_to([...]) makes them, and say how many (training.shapes); "
        "or train with one stage"
    )


def stages_of(variants: Sequence[Cut]) -> list[nn.Module]:
    """Build the stages of a model, which share their parameters with it.

    Args:
        variants: one for each shape, all of one model.

    Raises:
        ConfigError: batches of different shapes are computed differently in a stage that cannot tell them apart.
    """
    first, *others = variants
    if not others:
        return [Compiled(built) for built in first.stages()]
    if any(variant.chain.form != first.chain.form for variant in others):
        raise ConfigError(
            f"what the model returns is made otherwise for batches of another shape (first: {first.chain.form}, also: "
            f"{', '.join(str(v.chain.form) for v in others)}); let it return the same tree for all"
        )
    built = [list(zip(variant.inputs(), variant.stages(), strict=True)) for variant in variants]
    return [_shaped(k, variants, stage) for k, stage in enumerate(zip(*built, strict=True))]


def _shaped(stage: int, variants: Sequence[Cut], given: Sequence[tuple[Shapes, fx.GraphModule]]) -> Shaped:
    made: dict[Shapes, fx.GraphModule] = {}
    for (shapes, module), variant in zip(given, variants, strict=True):
        if _listed(made.setdefault(shapes, module)) != _listed(module):
            raise ConfigError(
                f"a stage cannot tell two shapes of batches apart, and computes otherwise (stage: {stage}, shape: "
                f"{shown(variant.chain.shapes)}, what crosses the cut: {shown(shapes)}); cut the model elsewhere"
            )
    return Shaped(_together(variants, list(made.values())), {key: type(m).forward for key, m in made.items()})


def _listed(module: fx.GraphModule) -> tuple[Operation, ...]:
    return Operations.listed_of(module.graph)


def _together(variants: Sequence[Cut], modules: Sequence[fx.GraphModule]) -> nn.Module:
    """Return a module that has what several use."""
    # A graph that only names it all: torch.fx knows what to take of a model for that.
    graph = fx.Graph()
    for node in itertools.chain.from_iterable(module.graph.nodes for module in modules):
        if node.op in ("get_attr", "call_module"):
            graph.create_node(node.op, node.target, (), {})
    graph.output(None)
    first = variants[0].chain
    constants = {name: Constant(t) for variant in variants for name, t in variant.chain.constants.items()}
    return first.module(graph, {**constants, RETURNED: Returned(first.form)})


def renamed(chain: Chain, number: int) -> Chain:
    """Return a chain whose constants have names of their own, beside those of other shapes; its graph is changed."""
    names = {name: f"{name}_{number}" for name in chain.constants}
    for node in chain.graph.find_nodes(op="get_attr"):
        node.target = names.get(str(node.target), node.target)
    constants = {names[name]: tensor for name, tensor in chain.constants.items()}
    return Chain(chain.model, chain.graph, constants, chain.shapes, chain.form, chain.kinds, chain.opaque)
