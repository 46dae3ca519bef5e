"""The examples that docs/optimizers.md shows are run as they stand."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import TensorDataset

import stalegrid

PAGE = (Path(__file__).parents[1] / "docs" / "optimizers.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.norm, self.head = (
            nn.Embedding(9, 8),
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 9),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.head(self.norm(torch.relu(self.hidden(self.embed(x).mean(1)))))
        return made


@pytest.fixture
def names() -> dict[str, Any]:
    torch.manual_seed(0)
    data = TensorDataset(torch.randint(0, 9, (64, 4)), torch.randint(0, 9, (64,)))
    run = {"stages": 3, "method": "pipedream", "engine": "simulator", "updates": 20, "batch_size": 4, "quiet": True}
    torchs = {"SequentialLR": SequentialLR, "LinearLR": LinearLR, "CosineAnnealingLR": CosineAnnealingLR}
    task = {"model": Net(), "data": data, "loss": nn.CrossEntropyLoss(), "run": run}
    return {"torch": torch, "partial": partial, "stalegrid": stalegrid, **torchs, **task}


def test_there_are_two_examples() -> None:
    assert len(EXAMPLES) == 2
    assert len(PAGE.splitlines()) < 80


@pytest.mark.parametrize("example", EXAMPLES, ids=["groups", "several"])
def test_an_example_runs(example: str, names: dict[str, Any]) -> None:
    if "Muon" in example and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    trained: list[stalegrid.Result] = []

    def train(*given: Any, **options: Any) -> None:
        trained.append(stalegrid.train(*given, **options))

    class Watched:
        by_name = staticmethod(stalegrid.by_name)

    Watched.train = staticmethod(train)  # type: ignore[attr-defined]
    exec(example, {**names, "stalegrid": Watched})
    (result,) = trained
    assert result.summary["version"] == 20
    assert result.summary["train_loss"] > 0
