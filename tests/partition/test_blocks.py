import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.partition import partition, paths_of
from stalegrid.partition.blocks import found

torch.set_num_threads(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Pair(nn.Module):
    """Takes and returns two tensors, and looks at their values, so that nothing can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if not bool(x.isfinite().all()):
            raise ValueError("not finite")
        return torch.tanh(self.fc(x)) * y, y + 1


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(x + y)


class Chained(nn.Module):
    def __init__(self, between: Any = lambda pair: pair) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Pair() for _ in range(3))
        self.head = Sum()
        self._between = between

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for layer in self.layers:
            x, y = self._between(layer(x, y))
        return self.head(x, y) if bool(x.isfinite().all()) else x


INPUTS = (noise(3, 4), noise(3, 4) + 2)


def test_blocks_are_called_in_turn() -> None:
    whole = Chained()
    model = copy.deepcopy(whole)
    cut = partition(model, INPUTS, 2, ["layers.2"], blocks=["layers.*", "head"])
    assert (cut.captured, cut.names) == ("blocks", ("layers.2",))
    first, last = cut.stages(model)
    made, expected = last(*first(*INPUTS)), whole(*INPUTS)
    assert torch.equal(made, expected)
    made.sum().backward()
    expected.sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), whole.parameters(), strict=True))


def test_without_blocks_the_remedy_names_them_and_the_line() -> None:
    with pytest.raises(ConfigError, match=r"line: test_blocks.py:\d+.* by: torch.export.*in turn as blocks"):
        partition(Chained(), INPUTS, 2)


def test_blocks_between_which_the_forward_does_more_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"its outputs differ"):
        partition(Chained(lambda pair: (pair[0] * 2, pair[1])), INPUTS, 2, blocks=["layers.*", "head"])


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (["layers.*", "tail"], r"no such block \(block: 'tail'\); its outermost parts are: layers, head"),
        (["layers.*", "layers.1"], r"called once \(block: layers.1"),
        (["layers.1.fc", "layers.*"], r"called once \(block: layers.1.fc, named by: layers.1"),
        (["head", "layers.*"], r"blocks cannot be called in turn \(block: layers.0, called with: 1 tensors\)"),
    ],
)
def test_blocks_that_are_none_are_refused(blocks: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        partition(Chained(), INPUTS, 2, blocks=blocks)


def test_blocks_may_be_modules() -> None:
    model = Chained()
    assert paths_of(model, [*model.layers, "head"]) == ["layers.0", "layers.1", "layers.2", "head"]
    with pytest.raises(ConfigError, match=r"no part of the model \(block: 1, a Linear\)"):
        paths_of(model, [model.head, nn.Linear(2, 2)])


def test_a_star_is_one_name_in_the_order_of_the_model() -> None:
    assert found(Chained(), ["layers.*.fc"]) == ["layers.0.fc", "layers.1.fc", "layers.2.fc"]
