"""Parameters split over servers: whole tensors, all of them, as evenly as can be, and nothing of the model touched."""

import copy
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.partition.sharding import Shard, shard_of, split
from stalegrid.stages.weights import Weights
from tests.cases import Net, build


def of_sizes(sizes: list[int], dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a model of vectors of such sizes, all elements of which differ."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return nn.ParameterList(torch.arange(end - size, end, dtype=dtype) for size, end in zip(sizes, ends, strict=True))


def names(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def state(model: nn.Module) -> dict[str, tuple[int, bool, list[float]]]:
    """Return where each tensor of a model lies, whether it is trained, and what is in it."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: (t.data_ptr(), t.requires_grad, t.flatten().tolist()) for name, t in tensors}


def check(model: nn.Module, shards: tuple[Shard, ...]) -> None:
    """Hold shards to be runs of whole tensors that cover what is trained exactly, and servers to have just these."""
    whole = Weights(copy.deepcopy(model))
    assert [shards[0].start, *(shard.stop for shard in shards)] == [*(s.start for s in shards), whole.trained]
    assert [name for shard in shards for name in shard.names] == names(model)
    entries = {entry.name: entry for entry in whole.entries}
    for number, shard in enumerate(shards):
        own = Weights(shard_of(model, shard.names, buffers=number == 0))
        parameters = shard.layout.entries[: len(shard.names)]
        assert tuple(own.entries) == shard.layout.entries
        assert own.trained == shard.layout.trained == shard.stop - shard.start
        assert torch.equal(own.flat[: own.trained], whole.flat[shard.start : shard.stop])
        assert tuple(names(own.module)) == shard.names
        assert [(e.name, e.shape, e.stride) for e in parameters] == [
            (e.name, e.shape, e.stride) for e in map(entries.__getitem__, shard.names)
        ]
        assert [e.offset + shard.start for e in parameters] == [entries[name].offset for name in shard.names]
        assert shard.buffers == (0 if number else whole.flat.numel() - whole.trained)
        assert shard.layout.numel == own.flat.numel() == own.trained + shard.buffers


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8),
    servers=st.integers(1, 8),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_shards_are_runs_of_whole_tensors_and_the_largest_is_as_small_as_any_such_split_allows(
    sizes: list[int], servers: int, dtype: torch.dtype
) -> None:
    model = of_sizes(sizes, dtype)
    servers = min(servers, len(sizes))
    shards = split(model, servers)
    assert len(shards) == servers
    assert all(shard.names for shard in shards)
    check(model, shards)
    offsets = [entry.offset for entry in Weights(copy.deepcopy(model)).entries] + [shards[-1].stop]
    best = min(
        max(offsets[b] - offsets[a] for a, b in pairwise([0, *cuts, len(sizes)]))
        for cuts in combinations(range(1, len(sizes)), servers - 1)
    )
    assert max(shard.stop - shard.start for shard in shards) == best


def test_a_split_by_hand() -> None:
    shards = split(of_sizes([16, 48, 32, 15, 1]), 3)
    assert [(shard.start, shard.stop, shard.names) for shard in shards] == [
        (0, 16, ("0",)),
        (16, 64, ("1",)),
        (64, 128, ("2", "3", "4")),  # every tensor begins on a cache line, of 16 elements
    ]
    assert [(s.start, s.stop) for s in split(of_sizes([16, 64, 32, 15, 1]), 2)] == [(0, 80), (80, 144)]


@pytest.mark.parametrize("servers", [1, 2, 3, 11])
def test_the_first_server_has_all_running_statistics_and_counters(servers: int) -> None:
    model = build(Net)
    shards = split(model, servers)
    check(model, shards)
    first, *others = shards
    floating = [name for name, b in model.named_buffers() if b.is_floating_point()]
    assert [entry.name for entry in first.layout.entries] == [*first.names, *floating]
    assert first.layout.counters == (("norm1.num_batches_tracked", ()), ("norm2.num_batches_tracked", ()))
    assert first.buffers == 4 * 16
    for shard in others:
        assert tuple(entry.name for entry in shard.layout.entries) == shard.names
        assert (shard.layout.counters, shard.buffers) == ((), 0)
    module = shard_of(model, first.names, buffers=True)
    assert dict(module.named_buffers()).keys() == dict(model.named_buffers()).keys()
    assert all(torch.equal(b, model.get_buffer(name)) for name, b in module.named_buffers())


def test_frozen_parameters_have_no_place_unless_the_forward_moves_them() -> None:
    model = build(Net)
    frozen = ("conv1.weight", "fc1.bias", "fc2.weight")
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    for servers in (1, 2, 4):
        shards = split(model, servers)
        check(model, shards)
        assert not any(set(frozen) & shard.layout.names for shard in shards)
        first, *others = split(model, servers, ["fc1.bias"])
        assert "fc1.bias" in first.layout.names - set(first.names)
        assert [s.layout for s in others] == [s.layout for s in shards[1:]]
        assert first.buffers == shards[0].buffers + 16  # seven elements, on a cache line


class Tied(nn.Module):
    """One weight under two names, one module under two names, and a parameter that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(5, 5)
        self.middle = nn.Linear(5, 30, bias=False)
        self.decode = nn.Linear(5, 5)
        self.decode.weight = self.encode.weight
        self.norm = nn.BatchNorm1d(5)
        self.again = self.norm


def test_tied_parameters_have_one_place_and_stay_tied() -> None:
    model = Tied()
    shards = split(model, 3)
    check(model, shards)
    assert [name for shard in shards for name in shard.names] == [
        "encode.weight",
        "encode.bias",
        "middle.weight",
        "decode.bias",
        "norm.weight",
        "norm.bias",
    ]
    assert shards[0].names == ("encode.weight", "encode.bias")
    own = shard_of(model, shards[0].names, buffers=True)
    everywhere = dict(own.named_parameters(remove_duplicate=False))
    assert everywhere.keys() == {"encode.weight", "encode.bias", "decode.weight"}
    assert everywhere["decode.weight"] is everywhere["encode.weight"]
    assert [entry.name for entry in shards[0].layout.entries[2:]] == ["norm.running_mean", "norm.running_var"]
    last = dict(shard_of(model, ["norm.bias"], buffers=False).named_parameters(remove_duplicate=False))
    assert last.keys() == {"norm.bias", "again.bias"}


@pytest.mark.parametrize("servers", [-1, 0, 12])
def test_so_many_servers_cannot_be_had(servers: int) -> None:
    with pytest.raises(ConfigError) as raised:
        split(build(Net), servers)
    assert str(raised.value) == (
        f"the trained parameters cannot be split over so many servers (servers: {servers}, tensors: 11); a tensor "
        "stays whole, so take 1 to 11"
    )


def test_a_model_with_nothing_to_train_is_refused() -> None:
    for model in (nn.BatchNorm1d(3, affine=False), nn.Linear(2, 2).requires_grad_(False)):
        for servers in (1, 2):
            with pytest.raises(ConfigError, match="no parameters to train"):
                split(model, servers)


def test_more_servers_than_trained_tensors_are_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8).requires_grad_(False))
    assert len(split(model, 2)) == 2
    with pytest.raises(ConfigError, match=r"servers: 3, tensors: 2\).*take 1 to 2$"):
        split(model, 3)


def test_empty_tensors_are_somewhere_too() -> None:
    model = of_sizes([0, 8, 0, 40])
    for servers in range(1, 5):
        check(model, split(model, servers))


def test_a_model_is_left_as_it_is() -> None:
    for model in (build(Net), Tied()):
        next(model.parameters()).requires_grad_(False)
        before, parameters = state(model), list(model.parameters())
        split(model, 2)
        for buffers in (False, True):
            own = shard_of(model, names(model)[1:3], buffers=buffers)
            with torch.no_grad():
                for tensor in (*own.parameters(), *own.buffers()):
                    tensor.zero_()
        assert state(model) == before
        assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
