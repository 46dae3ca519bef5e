import torch
from torch import nn

from stalegrid.objects.reached import leaves


def test_every_leaf_that_a_backward_reaches_is_found_once() -> None:
    model, x, other = nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True), torch.ones(2, requires_grad=True)
    frozen = torch.ones(2)
    y = model(x) * other + frozen + model(x).detach()
    found = leaves([y, y.sum()])
    assert len(found) == 4
    assert {id(leaf) for leaf in found} == {id(leaf) for leaf in (model.weight, model.bias, x, other)}


def test_what_has_no_graph_reaches_itself_or_nothing() -> None:
    leaf = torch.ones(2, requires_grad=True)
    assert leaves([torch.ones(1)]) == []
    assert [id(found) for found in leaves([leaf, torch.ones(1)])] == [id(leaf)]


def test_a_long_graph_needs_no_recursion() -> None:
    y = leaf = torch.ones(1, requires_grad=True)
    for _ in range(5000):
        y = y + 1
    assert [id(found) for found in leaves([y])] == [id(leaf)]
