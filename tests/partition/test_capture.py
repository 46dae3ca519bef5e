import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from stalegrid.errors import ConfigError
from stalegrid.partition import partition
from stalegrid.partition.draws import another, masked
from tests.partition.test_blocks import noise
from tests.partition.test_cutting import compose, names

torch.set_num_threads(1)


class Attending(nn.Module):
    """A transformer of torch's own, which torch.fx keeps whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.encoder(self.words(words), src_key_padding_mask=words == 0).mean(1))


WORDS = torch.randint(1, 11, (3, 5), generator=torch.Generator().manual_seed(0))


def test_a_large_part_that_torch_fx_keeps_whole_is_parted_by_torch_export() -> None:
    whole = Attending()
    model = copy.deepcopy(whole)
    cut = partition(model, (WORDS,), 3, ["encoder.layers.1", "encoder.layers.2"])
    assert (cut.captured, cut.names) == ("torch.export", ("encoder.layers.1", "encoder.layers.2"))
    stages = cut.stages(model)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = compose(stages, WORDS)
        torch.manual_seed(1)
        expected = whole.train()(WORDS)
    assert torch.equal(made, expected)
    made.sum().backward()
    expected.sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), whole.parameters(), strict=True))


class OnlyIf(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, size), nn.Linear(size, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) if x.sum() > -1e9 else x


def test_what_was_kept_whole_is_said_with_its_line() -> None:
    model = nn.Sequential(nn.Linear(4, 4), OnlyIf(4), nn.Linear(4, 4))
    cut = partition(model, (noise(3, 4),), 2, ["2"])
    assert cut.captured == "torch.fx"
    (refused, whole) = cut.notes
    assert "by: torch.export" in refused
    assert whole.startswith("1 is kept whole: ")
    assert "test_capture.py:" in whole


def test_shares_are_of_time_and_parameters() -> None:
    shares = partition(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 12)), (noise(3, 4),), 2).shares
    assert [s.parameters for s in shares] == [0.25, 0.75]
    assert sum(s.time for s in shares) == pytest.approx(1)


@pytest.mark.thorough
def test_a_stage_that_takes_far_more_than_its_share_is_warned_of() -> None:
    class Slow(OnlyIf):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(1000):
                x = super().forward(x) * 0.1
            return x

    model = nn.Sequential(nn.Linear(4, 4), Slow(4), nn.Linear(4, 4))
    with pytest.warns(UserWarning, match=r"stage 1 takes \d+% of the time, of 3 stages \(kept in one piece: 1\)"):
        partition(model, (noise(3, 4),), 3)


def test_answers_that_shapes_give_do_not_cross() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            rows = y.size(0) // 2
            return self.b(y.view(rows, -1)) * rows

    model = Folded()
    cut = partition(model, (noise(6, 4),), 2, ["b"])
    assert [len(layout) for layout in cut.layouts] == [1]
    assert torch.equal(compose(cut.stages(model), noise(6, 4)), model(noise(6, 4)))


def test_a_tuple_that_is_only_returned_crosses_as_tensors() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.words, self.rnn, self.out = nn.Embedding(11, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 11)

        def forward(self, words: Tensor, hidden: Any = None) -> Any:
            y, hidden = self.rnn(self.words(words), hidden)
            return self.out(y), hidden

    whole = Recurrent()
    model = copy.deepcopy(whole)
    made = compose(partition(model, (WORDS,), 3, ["rnn", "out"]).stages(model), WORDS)
    expected = whole(WORDS)
    assert torch.equal(made[0], expected[0])
    assert [torch.equal(a, b) for a, b in zip(made[1], expected[1], strict=True)] == [True, True]


def test_functions_of_libraries_are_followed() -> None:
    einops = pytest.importorskip("einops", reason="einops is not installed")

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patch, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(einops.rearrange(self.patch(x), "b c h w -> b (h w) c")).mean(1)

    model, x = Patches(), noise(2, 3, 8, 8)
    cut = partition(model, (x,), 2, ["head"])
    assert cut.captured == "torch.export"
    assert torch.equal(compose(cut.stages(model), x), model(x))


def test_what_gets_no_gradient_makes_no_stage_of_its_own() -> None:
    class Featured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.a, self.b = nn.Linear(4, 64), nn.Linear(64, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = torch.relu(self.features(x))
            return self.b(self.a(h))

    stages = partition(Featured(), (noise(3, 4),), 2)
    assert "b" in stages.names[0]
    with pytest.raises(ConfigError, match=r"fewer layers than stages \(layers with parameters: 2, stages: 3\)"):
        partition(Featured(), (noise(3, 4),), 3)


def test_packed_sequences_are_packed_in_one_operation() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.words, self.rnn = nn.Embedding(11, 4), nn.LSTM(4, 4, batch_first=True)
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(self.words(words), lengths.cpu(), batch_first=True, enforce_sorted=False)
            _, (hidden, _) = self.rnn(packed)
            return self.b(torch.relu(self.a(hidden[0])))

    whole, inputs = Packed(), (WORDS, torch.tensor([2, 5, 3]))
    model = copy.deepcopy(whole)
    cut = partition(model, inputs, 3, ["a", "b"])
    assert cut.captured == "torch.fx"
    stages = cut.stages(model)
    for lengths in ([2, 5, 3], [5, 1, 4]):
        assert torch.equal(compose(stages, WORDS, torch.tensor(lengths)), whole(WORDS, torch.tensor(lengths)))


def test_what_asks_for_no_gradient_asks_for_none_behind_a_cut() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            mask = (x > 0).float()
            return self.b(self.a(x)) * (mask * 2 if mask.requires_grad else mask)

    model = Masked()
    last = partition(model, (noise(3, 4),), 2, ["b"]).stages(model)[1]
    taken = [noise(3, 4).requires_grad_(), noise(3, 4).requires_grad_()]
    last(*taken).sum().backward()
    assert sorted(x.grad is None for x in taken) == [False, True]


def test_what_holds_for_one_batch_only_is_found_out_by_another() -> None:
    class Cached(nn.Module):
        """Remembers a mask of the first batch where nothing sees it."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            scale = float(x[0, 0]) if type(x) is Tensor else float(noise(3, 4)[0, 0])
            return self.b(self.a(x) * scale)

    with pytest.raises(ConfigError, match=r"cuts: b, batch: 1\): its outputs differ"):
        partition(Cached(), (noise(3, 4),), 2, ["b"])


@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool])
def test_another_batch_is_of_the_same_kind(kind: torch.dtype) -> None:
    given = (noise(6, 4) * 3).trunc().to(kind)
    (drawn,) = another(nn.Identity(), (given,), None)
    assert (drawn.shape, drawn.dtype) == (given.shape, given.dtype)
    assert not torch.equal(drawn, given)
    assert given.min() <= drawn.min()
    assert drawn.max() <= given.max()


def test_another_batch_is_one_that_the_model_accepts() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            if not bool((lengths[:-1] >= lengths[1:]).all()):
                raise ValueError("lengths are not sorted")
            return x

    inputs = (noise(3, 4), torch.tensor([4, 2, 1]))
    assert another(Sorted(), inputs, None) is inputs


class Masking(nn.Module):
    """Leaves out a mask that hides nothing where it can see that, as attention of transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h if type(mask) is Tensor and bool(mask.all()) else h * (mask + 0.5))


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_a_mask_that_is_left_out_where_it_hides_nothing_is_found_out(kind: torch.dtype) -> None:
    mask = torch.tensor([[1, 1, 1, 0]] * 3).to(kind)
    with pytest.raises(ConfigError, match=r"batch: 2\): its outputs differ.*another way while it is captured"):
        partition(Masking(), (noise(3, 4), mask), 2)


def test_only_masks_are_filled_and_only_if_the_model_accepts_that() -> None:
    class Refusing(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            if bool(mask.all()):
                raise ValueError("nothing is hidden")
            return x

    x, mask, count = noise(3, 4), torch.tensor([True, False, True]), torch.tensor([0, 1, 2])
    assert masked(nn.Identity(), (x,), None) == []
    assert masked(Masking(), (x, torch.ones(4)), None) == []
    assert masked(Refusing(), (x, mask), None) == []
    ((_, hiding),) = masked(nn.CosineSimilarity(), (x, torch.ones(3, 4, dtype=torch.long)), None)
    assert hiding.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]

    class Summed(nn.Module):
        def forward(self, x: Tensor, mask: Tensor, count: Tensor) -> Tensor:
            return x.sum() + mask.sum() + count.sum()

    ((same, full, still),) = masked(Summed(), (x, mask, count), None)
    assert same is x
    assert still is count
    assert torch.equal(full, torch.ones(3, dtype=torch.bool))


def test_parameters_belong_to_the_stage_that_uses_them() -> None:
    model: Any = Attending()
    stages = partition(model, (WORDS,), 2, ["encoder.layers.2"]).stages(model)
    assert names(stages[1]) == {n for n in names(model) if n.startswith(("encoder.layers.2", "head"))}
