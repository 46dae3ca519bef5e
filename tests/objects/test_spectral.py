import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as hooked
from torch.nn.utils.parametrizations import orthogonal
from torch.nn.utils.parametrizations import spectral_norm as parametrized

from stalegrid.objects.spectral import renew, vectors
from stalegrid.stages.weights import Weights

torch.set_num_threads(1)


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(parametrized(nn.Linear(6, 5)), hooked(nn.Linear(5, 4)), nn.BatchNorm1d(4))
    return nn.Sequential(model, parametrized(nn.Conv2d(2, 3, 3)))


NAMES = {
    "0.0.parametrizations.weight.0._u",
    "0.0.parametrizations.weight.0._v",
    "0.1.weight_u",
    "0.1.weight_v",
    "1.parametrizations.weight.0._u",
    "1.parametrizations.weight.0._v",
}


def test_the_vectors_of_both_forms_are_found() -> None:
    assert vectors(normed()) == NAMES
    assert vectors(orthogonal(nn.Linear(3, 3))) == frozenset()


def largest(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2))


@pytest.mark.parametrize("mode", [True, False])
def test_renewed_vectors_are_those_of_the_present_weights(mode: bool) -> None:
    model = normed().train(mode)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    statistics = copy.deepcopy(model[0][2].state_dict())
    renew(model)
    modes = {m.training for m in model.modules()}
    model.eval()
    model[0](torch.randn(2, 6))
    for layer in (model[0][0], model[0][1], model[1]):
        assert largest(layer.weight) == pytest.approx(1, abs=1e-4)  # power iteration is an approximation
    assert modes == {mode}
    assert all(torch.equal(a, b) for a, b in zip(statistics.values(), model[0][2].state_dict().values(), strict=True))


def test_the_vectors_lie_last_and_are_not_mixed() -> None:
    weights = Weights(normed())
    assert {e.name for e in weights.entries if e.offset >= weights.mixed} == NAMES
    assert {"0.2.running_mean", "0.2.running_var"} == {
        e.name for e in weights.entries if weights.trained <= e.offset < weights.mixed
    }
