import copy
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.messages import ALIGNMENT
from stalegrid.weights import VIEWS, Current, Stashed, Weights

torch.set_num_threads(1)


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5))
    with torch.no_grad():
        model[1].running_mean.uniform_()
    return model.to(memory_format=torch.channels_last)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    floating = {n: b for n, b in module.named_buffers() if b.is_floating_point()}
    return {**dict(module.named_parameters()), **floating}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_tensor_starts_on_a_cache_line_of_its_own(dtype: torch.dtype) -> None:
    model = convolutional().to(dtype)
    weights = Weights(model)
    end = 0
    for entry in weights.entries:
        view = entry.view(weights.flat)
        assert view.data_ptr() % ALIGNMENT == 0
        assert entry.offset * dtype.itemsize % ALIGNMENT == 0
        assert 0 <= entry.offset - end < ALIGNMENT // dtype.itemsize
        end = entry.offset + view.numel()
    assert end <= weights.flat.numel() < end + ALIGNMENT // dtype.itemsize


@settings(deadline=None)
@given(shapes=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=5))
def test_any_shapes_fit_without_overlap(shapes: list[list[int]]) -> None:
    model = nn.ParameterList(torch.full(shape, float(i + 1)) for i, shape in enumerate(shapes))
    weights = Weights(model)
    for i, (p, shape) in enumerate(zip(model, shapes, strict=True)):
        assert torch.equal(p, torch.full(shape, float(i + 1)))
    assert int(weights.flat.count_nonzero()) == sum(p.numel() for p in model)


def test_names_values_shapes_and_memory_order_stay() -> None:
    model = convolutional()
    before = copy.deepcopy(model)
    weights = Weights(model)
    assert [entry.name for entry in weights.entries] == list(tensors_of(before))
    assert list(model.state_dict()) == list(before.state_dict())
    for (name, tensor), entry in zip(tensors_of(before).items(), weights.entries, strict=True):
        now = tensors_of(model)[name]
        assert torch.equal(now, tensor)
        assert torch.equal(entry.view(weights.flat), tensor)
        assert now.shape == tensor.shape == entry.shape
        assert now.stride() == tensor.stride() == entry.stride
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_tensor_that_is_not_dense_becomes_dense() -> None:
    model = nn.Linear(3, 4)
    model.weight = nn.Parameter(torch.arange(24.0).view(4, 6)[:, ::2])
    Weights(model)
    assert torch.equal(model.weight, torch.arange(24.0).view(4, 6)[:, ::2])
    assert model.weight.is_contiguous()


def test_parameters_come_first() -> None:
    model = convolutional()
    weights = Weights(model)
    names = {entry.name: entry.offset for entry in weights.entries}
    assert {n for n, offset in names.items() if offset < weights.trained} == dict(model.named_parameters()).keys()


def test_tensors_and_vector_share_memory_both_ways() -> None:
    model = convolutional()
    weights = Weights(model)
    weights.flat.fill_(2.0)
    assert all((t == 2.0).all() for t in tensors_of(model).values())
    with torch.no_grad():
        for t in tensors_of(model).values():
            t.fill_(3.0)
    for entry in weights.entries:
        assert (entry.view(weights.flat) == 3.0).all()


def test_parameters_stay_the_same_objects_and_trainable() -> None:
    model = convolutional()
    model[3].bias.requires_grad_(False)
    before = list(model.parameters())
    weights = Weights(model)
    assert all(p is q and p.is_leaf for p, q in zip(model.parameters(), before, strict=True))
    assert [id(p) for p in weights.trainable()] == [id(p) for p in before[:-1]]


def test_padding_stays_zero_over_training() -> None:
    model = convolutional()
    weights = Weights(model)
    optimizer = torch.optim.Adam(weights.trainable(), weight_decay=0.1)
    for _ in range(2):
        model(torch.randn(4, 2, 4, 4)).square().sum().backward()
        optimizer.step()
    inside = torch.zeros_like(weights.flat, dtype=torch.bool)
    for entry in weights.entries:
        entry.view(inside).fill_(True)
    assert not inside.all()
    assert not weights.flat[~inside].any()


def test_integer_buffers_stay_where_they_are() -> None:
    model = convolutional()
    counter = model[1].num_batches_tracked
    weights = Weights(model)
    assert list(weights.counters()) == ["1.num_batches_tracked"]
    assert weights.counters()["1.num_batches_tracked"] is counter


def test_tied_parameters_lie_in_the_vector_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    model[2].weight = model[0].weight
    weights = Weights(model)
    assert [entry.name for entry in weights.entries] == ["0.weight"]
    assert model[2].weight is model[0].weight


def test_a_module_without_tensors_has_an_empty_vector() -> None:
    weights = Weights(nn.ReLU())
    assert weights.flat.shape == (0,)
    assert weights.trained == 0
    assert weights.locate(torch.empty(0)) is None


def test_mixed_types_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(ConfigError, match=r"torch\.float32 on cpu, torch\.float64 on cpu"):
        Weights(model)


def test_zero_grad_forgets_all_gradients() -> None:
    model = convolutional()
    weights = Weights(model)
    model(torch.randn(4, 2, 4, 4)).sum().backward()
    weights.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_locate_finds_views_of_parameters_and_nothing_else() -> None:
    model = convolutional()
    weights = Weights(model)
    at = {entry.name: entry.offset for entry in weights.entries}
    assert weights.locate(model[0].weight) == at["0.weight"]
    assert weights.locate(model[3].weight.t()) == at["3.weight"]
    assert weights.locate(model[3].weight[2:, 1:].detach()) == at["3.weight"] + 2 * 12 + 1
    assert weights.locate(model[1].running_mean) is None
    assert weights.locate(model[3].weight.clone()) is None


def update(weights: Weights, view: Stashed | Current) -> None:
    view.overwriting()
    weights.flat += 1
    weights.version += 1


def test_stashed_sees_the_weights_of_every_version_in_flight() -> None:
    weights = Weights(nn.Linear(2, 2))
    view = Stashed(weights)
    trained = weights.trained
    history = []
    for version in range(4):
        view.forwarded(version)
        history.append(weights.flat[:trained].clone())
        assert view.seen(version).data_ptr() == weights.flat.data_ptr()
        update(weights, view)
    for version in range(4):
        assert torch.equal(view.seen(version)[:trained], history[version])


def test_stashed_copies_no_version_that_nobody_needs() -> None:
    weights = Weights(nn.Linear(2, 2))
    view = Stashed(weights)
    update(weights, view)
    view.forwarded(1)
    view.finished(1)
    update(weights, view)
    for version in (0, 1):
        with pytest.raises(KeyError):
            view.seen(version)


def test_stashed_drops_a_copy_with_the_last_batch_that_needs_it() -> None:
    weights = Weights(nn.Linear(2, 2))
    view = Stashed(weights)
    view.forwarded(0)
    view.forwarded(0)
    update(weights, view)
    view.forwarded(1)
    update(weights, view)
    kept = weakref.ref(view.seen(0))
    view.finished(0)
    assert kept() is not None
    view.finished(0)
    assert kept() is None
    assert view.seen(1) is not None


def test_current_sees_the_weights_of_now() -> None:
    weights = Weights(nn.Linear(2, 2))
    view = Current(weights)
    view.forwarded(0)
    update(weights, view)
    assert view.seen(0) is weights.flat
    view.finished(0)


def test_views_by_name() -> None:
    assert {"stashed": Stashed, "current": Current} == VIEWS
