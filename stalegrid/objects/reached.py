"""Which tensors a graph would give gradients to.

Does not know: stages, losses, whose the tensors are.
"""

from collections.abc import Iterable

from torch import Tensor


def leaves(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Return the leaves that a backward from some tensors would reach, each once."""
    found: dict[int, Tensor] = {id(y): y for y in outputs if y.requires_grad and y.grad_fn is None}
    # A list and no recursion: graphs are deeper than Python's stack.
    nodes = [y.grad_fn for y in outputs if y.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        # Only the nodes that add to a leaf's gradient have one.
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = leaf
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                nodes.append(below)
    return list(found.values())
