import copy
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.programs.messages import ALIGNMENT
from stalegrid.stages.weights import Versions, Weights

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


def test_mixed_types_of_what_is_trained_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(ConfigError, match=r"torch\.float32 on cpu, torch\.float64 on cpu"):
        Weights(model)


def mixture() -> nn.Module:
    """Return a model with a frozen layer, and buffers of all kinds."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3).requires_grad_(False), nn.BatchNorm1d(3))
    model.register_buffer("turns", torch.ones(2, dtype=torch.complex64))
    model.register_buffer("wide", torch.ones(2, dtype=torch.float64))
    model.register_buffer("mask", torch.ones(2, dtype=torch.bool))
    return model


def test_what_is_frozen_or_of_another_type_stays_where_it_is() -> None:
    model = mixture()
    before = {name: t.data_ptr() for name, t in [*model.named_parameters(), *model.named_buffers()]}
    weights = Weights(model)
    trained = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [entry.name for entry in weights.entries] == [*trained, "2.running_mean", "2.running_var"]
    assert [entry.name for entry, _ in weights.places()] == trained
    assert set(weights.counters()) == {"2.num_batches_tracked", "mask"}
    still = ["1.weight", "1.bias", "turns", "wide"]
    assert list(weights.still()) == still
    assert all(weights.still()[name].data_ptr() == before[name] for name in still)


def test_a_frozen_parameter_that_moves_lies_among_the_statistics() -> None:
    weights = Weights(mixture(), ["1.bias", "0.weight"])
    assert [e.name for e in weights.entries if e.offset >= weights.trained] == [
        "1.bias",
        "2.running_mean",
        "2.running_var",
    ]
    assert weights.mixed == weights.flat.numel()


@pytest.mark.parametrize("name", ["1.weight", "turns", "wide"])
def test_what_changes_though_nobody_would_learn_of_it_is_named(name: str) -> None:
    model = mixture()
    weights = Weights(model)
    weights.check()
    weights.still()[name].mul_(2)
    with pytest.raises(TrainingError, match=rf"left alone at the start \(name: {name}\)"):
        weights.check()


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


def test_a_module_can_compute_with_other_parameters_for_a_while() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    weights = Weights(model)
    x, before = torch.randn(4, 3), weights.flat.clone()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(-2.0)
    with weights.showing(Weights(other).flat[: weights.trained].clone()):
        assert torch.equal(model(x), other(x))
    assert torch.equal(weights.flat[: weights.trained], before[: weights.trained])
    assert torch.equal(model[0].running_mean, other[0].running_mean), "buffers are the present ones"
    assert model[0].running_mean.any()


def test_its_own_parameters_come_back_after_an_error() -> None:
    weights = Weights(nn.Linear(3, 2))
    before = weights.flat.clone()

    def fail() -> None:
        with weights.showing(before + 1):
            assert torch.equal(weights.flat, before + 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(weights.flat, before)


def test_a_vector_that_is_shown_for_itself_is_not_copied() -> None:
    weights = Weights(nn.Linear(3, 2))
    with weights.showing(weights.flat):
        weights.flat.add_(1.0)
        changed = weights.flat.clone()
    assert torch.equal(weights.flat, changed)


def update(weights: Weights, versions: Versions) -> None:
    versions.overwriting()
    weights.flat += 1
    weights.version += 1


def held(model: nn.Module) -> tuple[Weights, Versions, int]:
    """Return weights, their versions, and the bytes of a copy of the parameters."""
    weights = Weights(model)
    return weights, Versions(weights), weights.trained * weights.flat.itemsize


def test_a_held_version_is_copied_when_it_is_overwritten_and_not_before() -> None:
    weights, versions, nbytes = held(convolutional())
    then = weights.flat[: weights.trained].clone()
    versions.hold(0)
    assert versions.nbytes == 0
    assert versions.read(0) is weights.flat
    update(weights, versions)
    assert versions.nbytes == nbytes
    assert torch.equal(versions.read(0), then)
    update(weights, versions)
    assert versions.nbytes == nbytes, "version 1 is held by nobody"
    assert torch.equal(versions.read(0), then)


def test_a_copy_leaves_out_running_statistics() -> None:
    weights, versions, nbytes = held(convolutional())
    versions.hold(0)
    update(weights, versions)
    assert versions.nbytes == nbytes < weights.flat.nbytes


def test_what_is_not_held_is_never_copied() -> None:
    weights, versions, _ = held(nn.Linear(2, 2))
    versions.hold(0)
    versions.release(0)
    for version in range(3):
        update(weights, versions)
        assert versions.nbytes == 0
        with pytest.raises(KeyError):
            versions.read(version)
    assert versions.read(3) is weights.flat


def test_a_version_lives_as_long_as_its_last_holder() -> None:
    weights, versions, nbytes = held(nn.Linear(2, 2))
    versions.hold(0)
    versions.hold(0)
    update(weights, versions)
    versions.hold(0)  # one that is past, and held already
    versions.hold(1)
    one = weights.flat.clone()
    update(weights, versions)
    assert versions.nbytes == 2 * nbytes
    kept = weakref.ref(versions.read(0))
    for _ in range(2):
        versions.release(0)
        assert kept() is not None
    versions.release(0)
    assert kept() is None
    assert versions.nbytes == nbytes
    assert torch.equal(versions.read(1), one)


def test_a_version_that_was_released_can_be_held_no_more() -> None:
    weights, versions, _ = held(nn.Linear(2, 2))
    update(weights, versions)
    with pytest.raises(AssertionError):
        versions.hold(0)


@settings(deadline=None)
@given(steps=st.lists(st.sampled_from(["hold", "release", "update"]), max_size=30), data=st.data())
def test_every_held_version_reads_as_it_was(steps: list[str], data: Any) -> None:
    weights, versions, nbytes = held(nn.Linear(2, 2))
    history, holders = [weights.flat.clone()], []
    for step in steps:
        if step == "hold":
            holders.append(data.draw(st.sampled_from([*holders, weights.version])))
            versions.hold(holders[-1])
        elif step == "release" and holders:
            versions.release(holders.pop(data.draw(st.integers(0, len(holders) - 1))))
        elif step == "update":
            update(weights, versions)
            history.append(weights.flat.clone())
        for version in holders:
            assert torch.equal(versions.read(version), history[version])
        assert versions.nbytes == len(set(holders) - {weights.version}) * nbytes


def test_a_counter_that_the_model_replaces_is_named() -> None:
    module = nn.BatchNorm1d(3)
    weights = Weights(module)
    module(torch.randn(4, 3))
    weights.check()
    assert weights.counted().tolist() == [1]
    module.num_batches_tracked = torch.tensor(7)
    with pytest.raises(TrainingError, match="num_batches_tracked"):
        weights.check()


def test_gradients_that_are_sums_are_divided_once_by_all_that_they_count() -> None:
    weights = Weights(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 1)))
    first, *others = weights.trainable()
    for p in others:
        p.grad = torch.full_like(p, 3.0)
    for number in (4.0, 0.0, 2.5):
        weights.count(torch.tensor([number], dtype=torch.float64))
    counted = weights.take_means()
    assert counted is not None
    assert counted.tolist() == [6.5]
    assert first.grad is None
    assert all(torch.equal(p.grad, torch.full_like(p, 3.0) / 6.5) for p in others if p.grad is not None)
    assert weights.take_means() is None
    assert all(torch.equal(p.grad, torch.full_like(p, 3.0) / 6.5) for p in others if p.grad is not None)
