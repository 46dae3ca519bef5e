"""The capture of a model whose parts the user names: each is kept whole, and they are called in turn.

Does not know: what the parts do, where the model is cut, groups.

For a forward that nothing can follow: what it does between the parts must be nothing, which a run of both shows.
"""

import re
from collections.abc import Sequence

from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors, copied
from stalegrid.partition.chain import Chain
from stalegrid.partition.following import told
from stalegrid.partition.outputs import parted
from stalegrid.partition.trial import CPU
from stalegrid.seeds import drawing


def chain_of(model: nn.Module, blocks: Sequence[str], inputs: Tensors) -> Chain:
    """Capture a model as a chain of its parts.

    Args:
        model: left as it is.
        blocks: paths of modules, in the order in which they are called; ``*`` stands for any name, in the order of the
            model.
        inputs: the tensors of one batch, which the first part is called with.

    Raises:
        ConfigError: there is no such part, or the parts cannot be called in turn.
    """
    attempt, graph = copied(model), fx.Graph()
    values: list[Tensor] = [x.clone() for x in inputs]
    nodes = [graph.placeholder(f"input_{i}") for i in range(len(inputs))]
    form = Form(None)
    for path in found(model, blocks):
        try:
            with drawing(CPU, 0, "trial"):
                made = attempt.get_submodule(path)(*values)
        except Exception as problem:  # the parts are the user's: anything can be raised
            raise ConfigError(
                f"the blocks cannot be called in turn (block: {path}, called with: {len(values)} tensors): "
                f"{told(problem)}; a block is called with what the one before it returns, and the first "
                "with the inputs"
            ) from problem
        form, values[:] = parted(made)
        whole = graph.call_module(path, tuple(nodes))
        nodes = _parts(graph, whole, form, path, len(values))
    graph.output(tuple(nodes))
    return Chain(model, graph, {}, tuple(x.shape for x in inputs), form)


def _parts(graph: fx.Graph, whole: fx.Node, form: Form, path: str, count: int) -> list[fx.Node]:
    """Return the tensors that a block returns."""
    outline = form.outline
    if not isinstance(outline, tuple):
        if count == 1 and form.fill(["one"]) == "one":
            return [whole]
    elif form.fill(range(count)) == tuple(range(count)):
        return [graph.call_function(_item, (whole, i)) for i in range(count)]
    raise ConfigError(
        f"a block must return a tensor or a tuple of tensors (block: {path}, returns: {type(outline).__name__}); wrap "
        "it in a module that does"
    )


def _item(made: tuple[Tensor, ...], i: int) -> Tensor:
    """Return one of several tensors that a block returned."""
    return made[i]


def paths_of(model: nn.Module, blocks: Sequence[str | nn.Module]) -> list[str]:
    """Return the paths of blocks, of which some may be given as modules.

    Args:
        model: that they are parts of.
        blocks: paths or patterns, or modules.

    Raises:
        ConfigError: a module is no part of the model.
    """
    known = {id(module): path for path, module in model.named_modules()}
    for i, block in enumerate(blocks):
        if not isinstance(block, str) and id(block) not in known:
            raise ConfigError(f"a block is no part of the model (block: {i}, a {type(block).__name__})")
    return [block if isinstance(block, str) else known[id(block)] for block in blocks]


def found(model: nn.Module, blocks: Sequence[str]) -> list[str]:
    """Return the paths of the modules that patterns name, in the order of the patterns.

    Raises:
        ConfigError: a pattern names none, or a module is named twice or lies in another.
    """
    paths: list[str] = []
    for pattern in blocks:
        wanted = re.compile(re.escape(pattern).replace(r"\*", r"[^.]+"))
        named = [path for path, _ in model.named_modules() if path and wanted.fullmatch(path)]
        if not named:
            known = ", ".join(name for name, _ in model.named_children()) or "none"
            raise ConfigError(f"the model has no such block (block: {pattern!r}); its outermost parts are: {known}")
        paths += named
    for path in paths:
        around = [p for p in paths if path.startswith(f"{p}.")] + [path] * (paths.count(path) > 1)
        if around:
            raise ConfigError(f"a block is called once (block: {path}, named by: {around[0]}, too)")
    return paths
