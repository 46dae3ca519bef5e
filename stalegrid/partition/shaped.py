"""The stages of a model that was captured for batches of several shapes, or of which a forward asks several things.

Does not know: how a model is captured, where it is cut, which batches there are.

A captured model has the answers that shapes give written into its operations, so every shape has operations of its own.
What they work with is the same: a stage is one module with all that any of them uses, and a forward for each shape.
So it is with the answers that values give.  The first stage sees of which kind a batch is, and tells it to the others.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import Shapes, Tensors, shapes_of, shown
from stalegrid.partition.asking import Otherwise
from stalegrid.partition.chain import RETURNED, Chain, Constant
from stalegrid.partition.outputs import Returned
from stalegrid.programs import Layout


@dataclass(frozen=True)
class Cut:
    """A model that was captured for batches of one shape, and where it is cut.

    Args:
        chain: its operations.
        cuts: positions, ascending.
        layouts: what crosses each cut.
        kind: of batches that it is for, by which what crosses is marked; None where there is one.
    """

    chain: Chain
    cuts: tuple[int, ...]
    layouts: tuple[Layout, ...]
    kind: int | None = None

    def stages(self) -> list[fx.GraphModule]:
        """Build the stages for batches of this shape."""
        bounds = [0, *self.cuts, len(self.chain.nodes)]
        return [self.chain.stage(start, stop, self.kind) for start, stop in itertools.pairwise(bounds)]

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


@dataclass(frozen=True)
class Way:
    """A forward of a stage, and what is asked of the inputs before it.

    Args:
        forward: makes what the stage makes.
        asks: makes truths of the inputs, all of which hold for its batches; None where nothing is asked.
    """

    forward: Callable[..., Any]
    asks: Callable[..., Tensors] | None = None


class Shaped(_Parts):
    """A stage that has a forward for each of several kinds of batches.

    Args:
        parts: has what they use.
        ways: by the shapes of their inputs; each is called with this module in the place of its own.
    """

    def __init__(self, parts: nn.Module, ways: Mapping[Shapes, Sequence[Way]]) -> None:
        super().__init__(parts)
        self._ways = dict(ways)

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the stage makes of a batch.

        Raises:
            TrainingError: the model was cut for no such batch.
        """
        ways = self._ways.get(shapes_of(tensors))
        if ways is None:
            raise TrainingError(unforeseen(shapes_of(tensors), list(self._ways)))
        found = next((way for way in ways if way.asks is None or all(way.asks(self, *tensors))), None)
        if found is None:
            raise Otherwise.of()
        return found.forward(self, *tensors)


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
        ConfigError: what the model returns has another form for some.
    """
    first, *others = variants
    if not others and first.chain.asks() is None:
        return [Compiled(built) for built in first.stages()]
    if any(variant.chain.form != first.chain.form for variant in others):
        raise ConfigError(
            f"what the model returns is made otherwise for batches of another shape (first: {first.chain.form}, also: "
            f"{', '.join(str(v.chain.form) for v in others)}); let it return the same tree for all"
        )
    built = [list(zip(variant.inputs(), variant.stages(), strict=True)) for variant in variants]
    lowest, *above = zip(*built, strict=True)
    return [_first(variants, lowest), *(_shaped(variants, stage) for stage in above)]


def _first(variants: Sequence[Cut], given: Sequence[tuple[Shapes, fx.GraphModule]]) -> Shaped:
    """Return the stage that has the inputs, and can be asked which variant a batch is of."""
    ways: dict[Shapes, list[Way]] = {}
    modules = [module for _, module in given]
    for variant, (shapes, module) in zip(variants, given, strict=True):
        asks = variant.chain.asks()
        ways.setdefault(shapes, []).append(Way(type(module).forward, None if asks is None else type(asks).forward))
        modules += [] if asks is None else [asks]
    return Shaped(_together(variants, modules), ways)


def _shaped(variants: Sequence[Cut], given: Sequence[tuple[Shapes, fx.GraphModule]]) -> Shaped:
    """Return a stage that is told of which variant a batch is."""
    return Shaped(_together(variants, [m for _, m in given]), {shapes: [Way(type(m).forward)] for shapes, m in given})


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
    """Return a chain whose constants have names of their own, beside those of other kinds; its graph is changed."""
    names = {name: f"{name}_{number}" for name in chain.constants}
    for node in chain.graph.find_nodes(op="get_attr"):
        node.target = names.get(str(node.target), node.target)
    constants = {names[name]: tensor for name, tensor in chain.constants.items()}
    return Chain(chain.model, chain.graph, constants, chain.shapes, chain.form, chain.kinds, chain.opaque)
