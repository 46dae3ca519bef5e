"""Where gradients lie in memory as the values do that they are of.

Does not know: where a model is cut, costs, groups.

A gradient crosses a cut laid out like its value.  Autograd may have laid it out otherwise, such as that of the mean of
a permuted value; a sum over it then rounds otherwise than in the whole model.
"""

import dataclasses

import torch
from torch import Tensor, fx

from stalegrid.objects import Tensors, copied, tensors_in
from stalegrid.partition.chain import Chain
from stalegrid.seeds import drawing

CPU = torch.device("cpu")


def lying_alike(chain: Chain, inputs: Tensors) -> frozenset[str]:
    """Return the names of the operations that make a tensor whose gradient is laid out like it, or that has none.

    Args:
        chain: a captured model, in the mode in which it will run; left as it is.
        inputs: the tensors of one batch.
    """
    own = dataclasses.replace(chain, model=copied(chain.model))
    interpreter = fx.Interpreter(own.module(own.graph, own.constants), garbage_collect_values=False)
    with drawing(CPU, 0, "trial"):
        made = tensors_in(interpreter.run(*(x.clone() for x in inputs)))
    ends = [y for y in made if y.requires_grad]
    values = {n.name: v for n, v in interpreter.env.items() if isinstance(v, Tensor)}
    learning = {name: v for name, v in values.items() if v.requires_grad}
    if not ends:
        return frozenset(values)
    slopes = [torch.ones_like(y) for y in ends]
    try:
        gradients = torch.autograd.grad(ends, list(learning.values()), slopes, allow_unused=True)
    except RuntimeError:  # a model whose backward fails is told of where an update is tried
        return frozenset()
    pairs = zip(learning.items(), gradients, strict=True)
    others = {name for (name, value), gradient in pairs if gradient is not None and not _alike(value, gradient)}
    return frozenset(values.keys() - others)


def _alike(value: Tensor, gradient: Tensor) -> bool:
    steps = zip(value.shape, value.stride(), gradient.stride(), strict=True)
    return all(a == b for size, a, b in steps if size > 1)
