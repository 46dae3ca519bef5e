"""The largest curvature of functions whose Hessian is known."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stalegrid.errors import ConfigError
from stalegrid.limits.curvature import by_differences, largest, second_derivative


def symmetric(values: list[float], seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=draw, dtype=torch.float64))
    return q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ q.T


def start(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("worst", [0.0, -3.0, -300.0])
def test_the_largest_is_found_however_far_down_a_hessian_bends(worst: float) -> None:
    values = [worst, -1.0, *np.linspace(0.0, 1.0, 40), 2.0]
    hessian = symmetric(list(map(float, values)))
    top = largest(lambda v: hessian @ v, start(len(values)), 43)
    assert top.settled
    assert top.value == pytest.approx(2.0, rel=1e-3)
    assert float(top.vector @ hessian @ top.vector) == pytest.approx(top.value)
    assert float(top.vector.norm()) == pytest.approx(1.0)


def test_what_has_not_settled_says_so() -> None:
    hessian = symmetric([float(x) for x in np.linspace(0.0, 1.0, 60)])
    top = largest(lambda v: hessian @ v, start(60), 3)
    assert (top.settled, top.products) == (False, 3)
    assert top.value < 1.0


def test_few_parameters_need_few_products() -> None:
    assert largest(lambda v: 5.0 * v, start(7), 40).products == 1
    top = largest(lambda v: torch.tensor([1.0, -2.0], dtype=torch.float64) * v, start(2), 40)
    assert (top.settled, top.products) == (True, 2)
    assert top.value == pytest.approx(1.0)


def test_a_product_is_that_of_the_hessian() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def function() -> Tensor:
        return (x.sin().sum() * y.square().sum()) + y[0] * x[1, 2] ** 3

    def of_one(flat: Tensor) -> Tensor:
        a, b = flat[:12].view(3, 4), flat[12:]
        return (a.sin().sum() * b.square().sum()) + b[0] * a[1, 2] ** 3

    at = torch.cat([x.flatten(), y]).detach()
    hessian: Any = torch.autograd.functional.hessian(of_one, at)  # type: ignore[no-untyped-call]
    vector = start(14)
    torch.testing.assert_close(second_derivative(function, [x, y], vector), hessian @ vector)


def test_what_is_linear_does_not_bend() -> None:
    w, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    assert not second_derivative(lambda: (2 * w).sum(), [w, unused], torch.ones(5)).any()


def test_an_operation_without_a_second_derivative_is_named() -> None:
    q = torch.randn(1, 1, 4, 8, requires_grad=True)
    flash = torch.nn.attention.SDPBackend.FLASH_ATTENTION
    with torch.nn.attention.sdpa_kernel(flash), pytest.raises(ConfigError, match=r"flash_attention.*attention written"):
        second_derivative(lambda: functional.scaled_dot_product_attention(q, q, q).sum(), [q], torch.ones(32))


def test_other_errors_are_left_alone() -> None:
    w = torch.ones(2, requires_grad=True)

    def fails() -> Tensor:
        raise RuntimeError("of the user's own")

    with pytest.raises(RuntimeError, match="of the user's own"):
        second_derivative(fails, [w], torch.ones(2))


class Forgetful(torch.autograd.Function):
    """Squares, with a backward that autograd cannot see through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.kept = x.detach().clone()
        return x.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * ctx.kept * gradient


def test_what_autograd_cannot_differentiate_shows_in_differences_of_gradients() -> None:
    w = torch.linspace(0.1, 1.0, 8, dtype=torch.float64, requires_grad=True)

    def of(square: Any) -> tuple[float, float]:
        def function() -> Tensor:
            return (square(w) * w).square().sum()

        top = largest(lambda v: second_derivative(function, [w], v), start(8), 8)
        return top.value, by_differences(function, [w], top.vector)

    plain, differences = of(torch.square)
    assert differences == pytest.approx(plain, rel=1e-5)
    forgotten, differences = of(Forgetful.apply)
    assert forgotten < 0.9 * plain
    assert differences == pytest.approx(plain, rel=1e-5)


def test_there_is_at_least_one_product() -> None:
    with pytest.raises(ConfigError, match=r"at least one product with the Hessian \(products: 0\)"):
        largest(lambda v: v, start(3), 0)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="not finite"):
        largest(lambda v: v * float("nan"), start(3), 5)
