"""A model without memory, and parts of it in memory."""

import pytest
import torch
from torch import nn

import stalegrid.objects.thin as thin
from stalegrid.objects import Thin, cast, copied, has_thin, tensors_of
from stalegrid.sources import built, filled, stand_in
from tests.sources.modules import various


def test_a_part_in_memory_is_that_part_of_the_whole_to_the_bit() -> None:
    made = built(various, 3)
    whole = filled(made.model, made.model, made.source)
    assert not any(t.is_meta for t in tensors_of(whole).values())
    for name, part in made.model.named_children():
        own = filled(part, made.model, made.source)
        expected = whole.get_submodule(name)
        assert list(tensors_of(own)) == list(tensors_of(expected))
        for key, tensor in tensors_of(own).items():
            value = tensors_of(expected)[key]
            assert torch.equal(tensor, value), key
            assert (tensor.dtype, tensor.stride(), tensor.requires_grad) == (
                value.dtype,
                value.stride(),
                value.requires_grad,
            )


def test_what_is_filled_keeps_ties_marks_hooks_and_modes() -> None:
    def factory() -> nn.Module:
        made = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        made[1].weight = made[0].weight
        made[0].weight.no_decay = True  # type: ignore[assignment]
        made[0].bias.register_hook(lambda g: g * 2)  # type: ignore[no-untyped-call]
        made[0].held = [made[0].bias]  # type: ignore[assignment]
        made[1].eval()
        return made

    made = built(factory, 0)
    own = filled(made.model, made.model, made.source)
    assert isinstance(own, nn.Sequential)
    assert own[0].weight is own[1].weight
    assert own[0].weight.no_decay
    assert own[0].held[0] is own[0].bias  # type: ignore[index]
    assert not own[1].training
    own(torch.ones(1, 3)).sum().backward()
    once = torch.autograd.grad(own(torch.ones(1, 3)).sum(), own[0].bias)[0]
    assert own[0].bias.grad is not None
    assert torch.equal(own[0].bias.grad, once)
    assert list(own[0].bias._backward_hooks)


def test_a_model_that_is_cast_has_values_that_are_cast() -> None:
    made = built(lambda: nn.Linear(3, 3), 0)
    whole = filled(made.model, made.model, made.source)
    model = cast(copied(made.model), torch.bfloat16)
    own = filled(model, model, made.source)
    assert torch.equal(own.weight, whole.weight.to(torch.bfloat16))  # type: ignore[arg-type,operator,union-attr]


def test_a_stand_in_has_small_tensors_as_they_are_and_large_ones_thin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "LEAST", 60)
    made = built(various, 3)
    whole, model = filled(made.model, made.model, made.source), stand_in(made.model, made.source)
    large = {name for name, p in made.model.named_parameters() if p.ndim > 1 and p.numel() >= 60}
    assert {name for name, t in tensors_of(model).items() if isinstance(t, Thin)} == large
    assert has_thin(model)
    for name, tensor in tensors_of(whole).items():
        found = tensors_of(model)[name]
        assert found.shape == tensor.shape
        assert name in large or torch.equal(found, tensor)
    assert model["tied"].weight is model["embedding"].weight  # type: ignore[index]
