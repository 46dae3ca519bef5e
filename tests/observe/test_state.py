"""What a model's state dict holds comes back from files, and so does what it leaves out."""

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.observe.state import check_saved, restore, saved, unsaved


class Buffered(nn.Linear):
    """Has a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def test_saved_and_unsaved_are_a_model_once_more() -> None:
    one, other = Buffered(), Buffered()
    with torch.no_grad():
        for tensor in (*one.parameters(), *one.buffers()):
            tensor.normal_()
    assert saved(one).keys() == one.state_dict().keys()
    assert unsaved(one).keys() == {"scratch"}
    restore(other, load(save(saved(one))), load(save(unsaved(one))))
    for a, b in zip((*one.parameters(), *one.buffers()), (*other.parameters(), *other.buffers()), strict=True):
        assert torch.equal(a, b)


def test_tensors_in_the_same_memory_are_saved_each_for_itself() -> None:
    model, line = nn.Linear(2, 2), torch.arange(5.0)
    model.register_buffer("first", line[:4])
    model.register_buffer("last", line[1:])
    model.register_buffer("whole", line)
    model.register_parameter("tied", model.weight)
    check_saved(model)
    state = load(save(saved(model)))
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


class Extra(nn.Linear):
    """Has a state besides its tensors."""

    def __init__(self, state: Any) -> None:
        super().__init__(2, 2)
        self.state = state

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


def test_extra_state_that_is_a_tensor_is_saved() -> None:
    check_saved(Extra(torch.ones(2)))


def test_extra_state_that_is_none_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"no tensor \(name: '1\._extra_state'\).*register a buffer"):
        check_saved(nn.Sequential(nn.ReLU(), Extra({"format": 2})))


def test_a_state_that_does_not_load_is_refused() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("expanded", torch.ones(1).expand(6))
    with pytest.raises(ConfigError, match=r"cannot be saved and loaded: .*expanded"):
        check_saved(model)


def test_a_model_that_is_checked_stays_as_it_is() -> None:
    model = Extra(torch.ones(2))
    before: Tensor = model.state
    check_saved(model)
    assert model.state is before


class Adapter(nn.Module):
    """Saves what is small: of its two layers only one."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.small = nn.Linear(4, 4), nn.Linear(4, 3)
        self.register_buffer("scale", torch.tensor([1.0, float("nan")]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.small(self.base(x))

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        return {n: t for n, t in super().state_dict(*args, **options).items() if n.startswith("small")}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def test_parameters_that_a_state_dict_leaves_out_come_back_too() -> None:
    one, other = Adapter(), Adapter()
    check_saved(one)
    assert unsaved(one).keys() == {"base.weight", "base.bias", "scale"}
    restore(other, load(save(saved(one))), load(save(unsaved(one))))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(p.is_leaf and p.requires_grad for p in other.parameters())


class Rounding(nn.Linear):
    """Saves its weight with fewer digits."""

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        return {n: t.half() if n == "weight" else t for n, t in super().state_dict(*args, **options).items()}


class Forgetting(nn.Linear):
    """Saves its bias, but does not load it."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict({"weight": state_dict["weight"]}, strict=False, assign=assign)


@pytest.mark.parametrize(("kind", "name"), [(Rounding, "weight"), (Forgetting, "bias")])
def test_a_state_that_loses_something_is_refused_before_training(kind: type[nn.Linear], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"does not bring back a tensor as it was saved \(name: {name}\)"):
        check_saved(kind(3, 2))


def test_what_is_zero_or_no_number_is_no_loss() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("count", torch.tensor(0))
    model.register_buffer("flags", torch.tensor([True, False]))
    model.register_buffer("mask", torch.tensor([0.0, -0.0, float("nan"), float("-inf")], dtype=torch.float16))
    check_saved(model)
