"""Rows that are streamed from a file, shuffled in a buffer: those of Hugging Face, and a kind that answers alike."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stalegrid
from stalegrid import seeds
from tests.cases import CPU

ROWS, SIZE, UPDATES = 30, 4, 16  # the end of a pass is in it twice, and fills no update


class Streamed:
    """Answers as a streamed and shuffled data set of ``datasets``, and inherits from nothing of torch's."""

    def __init__(self, path: Path) -> None:
        self.path, self.epoch, self.read = path, 0, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "read": self.read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.read = state["epoch"], state["read"]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        draw, buffer = random.Random(1 + self.epoch), list[dict[str, Any]]()
        with self.path.open() as lines:
            for row in map(json.loads, lines):
                self.read += 1
                if len(buffer) < 8:
                    buffer.append(row)
                    continue
                i = draw.randrange(8)
                yield {name: torch.tensor(value) for name, value in buffer[i].items()}
                buffer[i] = row
        draw.shuffle(buffer)
        for row in buffer:
            yield {name: torch.tensor(value) for name, value in row.items()}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop, self.head = nn.Embedding(20, 8), nn.Dropout(0.2), nn.Linear(8, 3)

    def forward(self, ids: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.head(self.drop(self.embed(ids).mean(1))), label)}


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def built() -> Net:
    with seeds.drawing(CPU, 0, "test model"):
        return Net()


def own(path: Path) -> Any:
    return Streamed(path)


def of_datasets(path: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = datasets.load_dataset(
        "json", data_files=str(path), split="train", streaming=True, cache_dir=str(path.parent / "cache")
    )
    return rows.shuffle(seed=1, buffer_size=8).with_format("torch")


def plain(data: Any) -> nn.Module:
    """Train as anybody would, but for the generators that dropout draws from."""
    model = built()
    optimizer, number, rows = sgd(list(model.parameters())), -1, list[Any]()
    for n in range(UPDATES):
        if len(rows) < SIZE:
            number += 1
            data.set_epoch(number)
            rows = list(data)
        batch, rows = rows[:SIZE], rows[SIZE:]
        optimizer.zero_grad()
        with seeds.drawing(CPU, 0, "forward", 0, 0, n):
            loss = model(**{name: torch.stack([row[name] for row in batch]) for name in batch[0]})["loss"]
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("make", [own, of_datasets])
def test_rows_of_a_stream_train_as_a_plain_loop_over_them_on_every_engine(make: Any, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [{"ids": [draw.randrange(20) for _ in range(5)], "label": draw.randrange(3)} for _ in range(ROWS)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = plain(make(path)).state_dict()
    common: dict[str, Any] = {"optimizer": sgd, "batch_size": SIZE, "updates": UPDATES, "quiet": True}
    ways: list[dict[str, Any]] = [
        {"method": "sgd", "engine": "simulator"},
        {"method": "sgd", "engine": "processes"},
    ]
    for way in ways:
        found = stalegrid.train(built(), make(path), **common, **way).model.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in expected.items()), way
    late: dict[str, Any] = {"method": "pipedream", "stages": 2, "cuts": ["head"]}
    one, other = (
        stalegrid.train(built(), make(path), **common, **late, engine=engine).model.state_dict()  # type: ignore[arg-type]
        for engine in ("simulator", "processes")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not torch.equal(one["head.weight"], expected["head.weight"])
