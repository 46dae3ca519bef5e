"""What a forward asks of the values of its inputs has the answers of each batch, or the batch is refused."""

import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import stalegrid
from stalegrid.engines.distributed.packing import Packer
from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import copied
from stalegrid.partition import Partition, partition
from stalegrid.partition.asking import answering, heard
from stalegrid.partition.export import export
from tests.partition.test_trace import noise

torch.set_num_threads(1)

X = noise(3, 4)
FULL = torch.ones(3, 4, dtype=torch.long)
HIDING = FULL.clone().index_fill_(1, torch.tensor([3]), 0)


class Attending(nn.Module):
    """Leaves out a mask that hides nothing, and needs the mask once more at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        shown = None if mask.all() else mask * 1.0
        h = self.a(x).relu()
        h = self.b(h if shown is None else h * shown + shown)
        return self.c(h if shown is None else h / (shown + 2)) * mask


def alike(model: nn.Module, cut: Partition, *batch: Tensor) -> bool:
    """Return whether the stages make of a batch what the model makes."""
    made: Any = batch
    for stage in cut.stages(copied(model)):
        made = stage(*(made if isinstance(made, tuple) else (made,)))
    return torch.equal(made, model(*batch))


@pytest.mark.parametrize("first", [FULL, HIDING])
@pytest.mark.parametrize("kind", [torch.bool, torch.int64])
def test_each_answer_has_a_capture_of_its_own(first: Tensor, kind: torch.dtype) -> None:
    model = Attending()
    for cuts in (["b"], ["c"], ["b", "c"], None):
        cut = partition(model, (X, first.to(kind)), 2 if cuts is None else len(cuts) + 1, cuts)
        assert (cut.captured, len(cut.variants), len(cut.shapes)) == ("torch.export", 2, 1)
        assert alike(model, cut, X, FULL.to(kind))
        assert alike(model, cut, X + 1, HIDING.to(kind))
        assert alike(model, cut, X, HIDING.flip(0, 1).to(kind))


def test_stages_are_told_of_the_answer_in_no_bytes() -> None:
    cut = partition(Attending(), (X, FULL), 2, ["c"])
    full, hiding = cut.crossing(0)
    assert full[-1].shape != hiding[-1].shape
    assert full[-1].nbytes == hiding[-1].nbytes == 0


def test_what_is_asked_of_other_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"test_asking.py:\d+: .*what is done depends on the values of tensors"):
        partition(Attending(), (X, FULL.float()), 2)


def test_a_model_that_cannot_be_captured_with_another_mask_is_refused() -> None:
    class Asking(Attending):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.c(self.b(self.a(x if mask.all() or x.sum() > 0 else -x)))

    with pytest.raises(ConfigError, match=r"with another mask as for the first one.*depends on the values of tensors"):
        partition(Asking(), (X, FULL), 2, ["b"])


class Greeting(nn.Module):
    """Asks for a word that neither the batch has nor others that are tried."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, words: Tensor) -> Tensor:
        h = self.a(words)
        return self.b(h if (words == 8).any() else h.relu())


def test_a_batch_that_answers_as_none_that_was_tried_is_refused() -> None:
    model, words = Greeting(), torch.tensor([[0, 1, 2], [3, 4, 5]])
    cut = partition(model, (words,), 2, ["b"])
    assert alike(model, cut, words.flip(0))
    with pytest.raises(TrainingError, match=r"takes another way for this batch.*one stage"):
        alike(model, cut, words + 3)


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_run_names_the_batch_that_answers_otherwise(engine: str) -> None:
    words = torch.arange(24).reshape(8, 3) % 8
    words[7, 1] = 8
    with pytest.raises(
        TrainingError,
        match=r"^the forward takes another way [^;]*unit: \(0,0\), batch: 3, sample: 6\); [^;]*one stage(\n|$)",
    ):
        stalegrid.train(
            Greeting(),
            DataLoader(TensorDataset(words, words % 4), batch_size=2),
            loss=lambda y, target: F.cross_entropy(y.flatten(0, 1), target.flatten()),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            stages=2,
            method="pipedream",
            micro_batches=1,
            updates=4,
            engine=engine,
            quiet=True,
        )


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1])
        return self.a(x) if (positions.diff() == 1).all() else x


def test_what_shapes_answer_is_asked_of_no_batch() -> None:
    chain = export(Counting().train(), (X,))
    assert chain.asks() is None
    assert chain.foresees((X + 1,))
    assert not chain.foresees((noise(2, 4),))


def test_questions_travel() -> None:
    model, packed = Attending(), io.BytesIO()
    Packer(packed).dump(partition(model, (X, HIDING), 2, ["b"]))
    assert alike(model, pickle.loads(packed.getvalue()), X, FULL)


def test_a_forward_that_asks_more_or_less_than_before_is_found_out() -> None:
    assert heard(Attending(), (X, HIDING), None) == (False,)

    def run(answers: tuple[bool, ...]) -> None:
        with answering(answers):
            assert FULL.all()

    run((True,))
    for answers in ((), (True, True)):
        with pytest.raises(TypeError, match="asks other things"):
            run(answers)
