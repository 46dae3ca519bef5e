import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import PLACE, Form, tensors_in
from stalegrid.partition.trial import check

torch.set_num_threads(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Later(nn.Linear):
    """The first forward fills a buffer."""

    def __init__(self, scale: Tensor | None) -> None:
        super().__init__(4, 3)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None or len(self.scale) < 4:
            self.scale = torch.linspace(1, 2, 4)
        return super().forward(x * self.scale)


def test_a_buffer_that_the_forward_makes_is_refused_and_the_remedy_works() -> None:
    model = Later(None)
    with pytest.raises(ConfigError, match=r"makes a buffer in its forward \(buffer: scale\).*run the model on one"):
        check(model, (noise(2, 4),))
    check(model, (noise(2, 4),))


def test_a_buffer_that_is_replaced_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"replaces a buffer .*\(buffer: scale\)"):
        check(Later(torch.ones(1)), (noise(2, 4),))


def test_a_buffer_that_is_taken_away_is_refused() -> None:
    class Once(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = None
            return super().forward(x)

    model = Once(4, 3)
    model.register_buffer("seen", torch.zeros(1))
    with pytest.raises(ConfigError, match=r"buffer: seen"):
        check(model, (noise(2, 4),))


def test_parameters_that_the_first_forward_makes_are_refused_and_the_remedy_works() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ConfigError, match=r"first forward makes a parameter or buffer \(name: 0\.weight\)"):
        check(model, (noise(2, 4),))
    model(noise(2, 4))
    check(model, (noise(2, 4),))


def test_a_scripted_part_is_refused_by_name() -> None:
    def traced(module: nn.Module) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch is about to give it up
            return torch.jit.trace(module, noise(2, 4))

    with pytest.raises(ConfigError, match=r"compiled by torch\.jit .*\(part: 1\); give the module"):
        check(nn.Sequential(nn.Linear(4, 4), traced(nn.Linear(4, 4))), (noise(2, 4),))
    with pytest.raises(ConfigError, match="part: the whole model"):
        check(traced(nn.Linear(4, 4)), (noise(2, 4),))
    check(nn.Sequential(nn.Linear(4, 4), traced(nn.ReLU())), (noise(2, 4),))


def test_a_forward_may_need_gradients() -> None:
    class Force(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x.requires_grad_()
            return torch.autograd.grad(self.energy(x).tanh().sum(), x, create_graph=True)[0]

    assert check(Force(), (noise(2, 4),)).shape == (2, 4)


@pytest.mark.parametrize("wrap", [lambda y: {"y": y}, lambda y: [y], lambda y: (y, (None, y)), lambda y: (y, 3)])
def test_any_tree_is_an_output(wrap: Any) -> None:
    class Wrapped(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return wrap(super().forward(x))

    made = check(Wrapped(4, 3), (noise(2, 4),))
    assert {y.shape for y in tensors_in(made)} == {(2, 3)}
    assert Form.split(made)[0] == Form(wrap(PLACE))


@pytest.mark.parametrize(("wrap", "shown"), [(lambda y: None, "NoneType"), (lambda y: {"y": 3}, "dict")])
def test_outputs_without_a_tensor_are_refused(wrap: Any, shown: str) -> None:
    class Wrapped(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return wrap(super().forward(x))

    with pytest.raises(ConfigError, match=rf"no tensor in the model's output .*{shown}"):
        check(Wrapped(4, 3), (noise(2, 4),))


def test_a_batch_that_goes_whole_to_the_model_is_said_to_where_the_model_does_not_take_it() -> None:
    form, inputs = Form.split(((), {"image": torch.randn(2, 3), "label": torch.zeros(2)}))
    with pytest.raises(ConfigError, match=r"'image'; what is no pair \(input, target\) goes whole to the model"):
        check(nn.Sequential(nn.Linear(3, 2)), inputs, form)
    with pytest.raises(ConfigError, match=r"cannot be multiplied \(2x4 and 3x2\)$"):
        check(nn.Sequential(nn.Linear(3, 2)), (torch.randn(2, 4),))


def test_lists_of_numbers_are_said_to_be_a_tensor_a_place() -> None:
    tokens = [torch.zeros(2, dtype=torch.int64) for _ in range(3)]
    form, inputs = Form.split(((), {"input": tokens}))
    with pytest.raises(ConfigError, match=r"each place is a tensor: return the list as a tensor$"):
        check(nn.Embedding(4, 3), inputs, form)
    with pytest.raises(ConfigError, match=r"each half of which may be a tree$"):
        check(nn.Embedding(4, 3), (torch.zeros(2, 3), torch.zeros(2)), None)


@pytest.mark.parametrize(
    ("model_on", "inputs_on", "told"), [("meta", "cpu", "the model is"), ("cpu", "meta", "the samples are")]
)
def test_what_is_on_another_device_is_to_be_given_on_the_cpu(model_on: str, inputs_on: str, told: str) -> None:
    model, inputs = nn.Linear(4, 3).to(model_on), (torch.ones(2, 4).to(inputs_on),)
    with pytest.raises(ConfigError, match=rf"{told} on another device than the CPU .*device: meta\); give"):
        check(model, inputs)
