"""Parameters that have hardly any memory."""

import torch
from torch import nn

from stalegrid.objects import Thin, copied, dense, has_thin, is_large, nudge


def thin_layer() -> nn.Linear:
    layer = nn.Linear(500, 300)
    torch.manual_seed(0)
    layer.weight = Thin.like(layer.weight)
    return layer


def test_a_thin_parameter_has_all_elements_and_little_memory() -> None:
    weight = thin_layer().weight
    assert weight.shape == (300, 500)
    assert weight.untyped_storage().nbytes() == 4 * 799
    assert weight[3, 5] == weight[5, 3]
    assert float(weight.detach().std()) > 0.01


def test_it_computes_as_a_dense_one() -> None:
    layer = thin_layer()
    whole = dense(layer)
    assert isinstance(whole, nn.Linear)
    assert not has_thin(whole)
    assert dense(whole) is whole
    x = torch.randn(4, 500)
    for module in (layer, whole):
        module(x).square().sum().backward()
    # Processors may sum in another order what lies elsewhere in memory; a trial is held against its likes alone.
    torch.testing.assert_close(layer(x), whole(x))
    assert layer.weight.grad is not None
    assert whole.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, whole.weight.grad)


def test_a_copy_is_thin_and_its_own() -> None:
    layer = thin_layer()
    layer.again = [layer.weight]  # type: ignore[assignment]
    own = copied(layer)
    assert isinstance(own.weight, Thin)
    assert own.again[0] is own.weight  # type: ignore[index]
    assert own.weight.untyped_storage().nbytes() == 4 * 799
    before = layer.weight.detach().contiguous()
    nudge(own)
    assert torch.equal(layer.weight, before)
    assert torch.equal(own.weight, before * 1.0625)


def test_small_and_whole_numbered_tensors_are_not_to_be_thin() -> None:
    assert is_large(nn.Parameter(torch.empty(300, 300)))
    assert not is_large(nn.Parameter(torch.empty(100, 100)))
    assert not is_large(nn.Parameter(torch.empty(90000)))
    assert not is_large(nn.Parameter(torch.empty(300, 300, dtype=torch.int8), requires_grad=False))
    assert not is_large(torch.empty(300, 300))
