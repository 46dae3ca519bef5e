"""A captured model without what is known before it runs: answers that shapes give, and tuples that are only returned.

Does not know: how a model is captured, where it is cut.

All batches of a run have the shapes of the first one.  So a size that is read in one stage and used in another does not
cross, and what an operation returns to the user in a tuple crosses as tensors.
"""

import dataclasses
import operator
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import fx

from stalegrid.objects import Form
from stalegrid.partition.chain import Chain
from stalegrid.partition.trial import Trial

SHAPE = ("size", "dim", "ndimension", "numel", "nelement", "__len__")
"""Methods of a tensor that answer by its shape alone."""

OPERATORS = ("_operator", "builtins")
"""Where Python's own operators are."""


def settled(chain: Chain, trial: Trial) -> Chain:
    """Return a chain in which is answered what its operations ask of shapes, and make of the answers.

    Args:
        chain: a captured model; its graph is changed.
        trial: one run of it; gets the values of operations that are added.
    """
    for node in chain.nodes:
        if not _asks_shape(node):
            continue
        for user in list(node.users):
            answered = partial(_answered, {node: trial.values[node.name]})
            user.args, user.kwargs = fx.map_arg(user.args, answered), fx.map_arg(user.kwargs, answered)
        chain.graph.erase_node(node)
    return _parted(chain, trial)


def _answered(answers: dict[fx.Node, Any], node: fx.Node) -> Any:
    return answers.get(node, node)


def _asks_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in SHAPE
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype")
    # What is reckoned of answers, which stand in its arguments by now.
    reckons = node.op == "call_function" and getattr(node.target, "__module__", "") in OPERATORS
    return reckons and not node.all_input_nodes


def _parted(chain: Chain, trial: Trial) -> Chain:
    """Return a chain whose output has the tensors of a tuple in the place of the tuple."""
    (output,) = chain.graph.find_nodes(op="output")
    returned: Any = output.args[0]
    values = [trial.values[node.name] if isinstance(node, fx.Node) else node for node in returned]
    if not any(isinstance(value, list | tuple) for value in values):
        return dataclasses.replace(chain)
    made: list[Any] = []
    for node, value in zip(returned, values, strict=True):
        # At once where the tuple is made, so that it crosses no cut.
        with chain.graph.inserting_before(node.next if isinstance(node, fx.Node) else output):
            made += _parts(chain.graph, trial, node, value)
    output.args = (tuple(made),)
    forms = [Form.split(value)[0].outline for value in values]
    return dataclasses.replace(chain, form=Form(chain.form.fill(forms)))


def _parts(graph: fx.Graph, trial: Trial, node: Any, value: Any) -> Iterator[Any]:
    if not isinstance(value, list | tuple):
        yield node
        return
    for i, part in enumerate(value):
        own = graph.call_function(operator.getitem, (node, i))
        own.meta = dict(node.meta)
        trial.values[own.name] = part
        if node.name in trial.learning:
            trial.learning.add(own.name)
        yield from _parts(graph, trial, own, part)
