"""What every process has is written by name, everything else by value."""

import io
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from stalegrid.engines.distributed.packing import Packer


def read(value: Any) -> Any:
    packed = io.BytesIO()
    Packer(packed).dump(value)
    return pickle.loads(packed.getvalue())


def test_memory_that_tensors_share_is_written_once_and_shared_again() -> None:
    whole = torch.randn(500, 100)
    packed = io.BytesIO()
    Packer(packed).dump([*whole, whole.view(torch.int32)])
    assert packed.tell() < 2 * whole.nbytes
    *rows, integers = pickle.loads(packed.getvalue())
    assert torch.equal(torch.stack(rows), whole)
    integers[3] = 0
    assert torch.equal(rows[3], torch.zeros(100))
    assert torch.equal(rows[4], whole[4])


GENERATORS = [random.random.__self__, np.random.random.__self__, torch.default_generator]  # type: ignore[attr-defined]


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_global_generator_is_that_of_its_process(generator: Any) -> None:
    assert read([generator])[0] is generator


@pytest.mark.parametrize("draw", [random.random, random.gauss, np.random.rand, np.random.default_rng])
def test_what_draws_from_one_draws_from_that_of_its_process(draw: Any) -> None:
    assert read(draw) == draw


@pytest.mark.parametrize("own", [random.Random(1), np.random.RandomState(1)])
def test_a_generator_of_the_users_own_is_a_copy(own: Any) -> None:
    found = read(own.random)
    assert found.__self__ is not own
    assert found() == own.random()


@pytest.mark.parametrize("operator", [torch.ops.aten.relu, torch.ops.aten.relu.default, torch.ops.aten.add.Tensor])
def test_an_operator_of_torch_is_itself(operator: Any) -> None:
    assert read(operator) is operator


def test_a_function_is_written_by_value() -> None:
    factor = 3
    assert read(lambda x: x * factor)(2) == 6


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrized_module_is_what_it_was(norm: Any) -> None:
    layer, x = norm(nn.Linear(3, 3)).eval(), torch.ones(2, 3)
    found = read(nn.Sequential(layer, layer))
    assert found[0] is found[1]
    assert torch.equal(found(x), layer(layer(x)))
    assert list(found.state_dict()) == [f"{i}.{name}" for i in (0, 1) for name in layer.state_dict()]
    with torch.no_grad():
        for p in found.parameters():
            p.mul_(2.0)
    assert not torch.equal(found(x), layer(layer(x))), "the weight is computed from its own parameters"
