from collections.abc import Callable

import pytest
from torch import nn

from stalegrid.objects.modes import in_training


class Frozen(nn.Module):
    """Normalisation stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(2), nn.Linear(2, 2)

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        self.norm.eval()
        return self


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.BatchNorm1d(2))


def modes(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()]


@pytest.mark.parametrize("before", [lambda m: m, lambda m: m.train(), lambda m: m.eval()])
def test_a_models_own_train_decides(before: Callable[[nn.Module], nn.Module]) -> None:
    assert all(modes(in_training(before(plain()))))
    assert modes(in_training(before(Frozen()))) == [True, False, True]
    assert modes(in_training(before(nn.Sequential(Frozen())))) == [True, True, False, True]


def test_the_model_is_left_as_it_is() -> None:
    model = plain().eval()
    in_training(model)
    assert not any(modes(model))


def test_modes_set_by_hand_are_said_to_be_undone() -> None:
    model = plain()
    model[0].eval()
    with pytest.warns(UserWarning, match=r"\(parts: 0\); override train\(\)"):
        assert all(modes(in_training(model)))
    model = plain().eval()
    model[0].train()
    with pytest.warns(UserWarning, match=r"\(parts: the whole model\)"):
        in_training(model)
