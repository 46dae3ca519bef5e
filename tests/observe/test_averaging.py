"""The average of the models that were evaluated."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.observe.averaging import WeightAverage


def model(value: float, extreme: float = math.inf) -> nn.Module:
    made = nn.BatchNorm1d(1)
    made.register_buffer("extreme", torch.tensor([extreme]))
    with torch.no_grad():
        for tensor in (made.weight, made.bias, made.running_mean, made.running_var):
            assert tensor is not None
            tensor.fill_(value)
        assert made.num_batches_tracked is not None
        made.num_batches_tracked.fill_(int(10 * value))
    return made


def test_it_begins_with_the_first_and_moves_by_the_rest_of_the_decay(tmp_path: Path) -> None:
    average = WeightAverage(0.75)
    average.on_start(tmp_path)
    expected = 4.0
    for value in (4.0, 8.0, 1.0):
        average.on_evaluation({"version": 1}, model(value))
        expected = expected if value == 4.0 else 0.75 * expected + 0.25 * value
        found = load_file(tmp_path / "model-ema.safetensors")
        for name in ("weight", "bias", "running_mean", "running_var"):
            assert found[name].item() == expected
        assert found["num_batches_tracked"].item() == 10 * value
        assert found["extreme"].item() == math.inf


def test_what_stays_does_so_to_the_bit(tmp_path: Path) -> None:
    average = WeightAverage(0.9)
    average.on_start(tmp_path)
    for _ in range(3):
        average.on_evaluation({"version": 1}, model(0.1))
    assert load_file(tmp_path / "model-ema.safetensors")["weight"].item() == torch.tensor(0.1).item()


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        WeightAverage(decay)
