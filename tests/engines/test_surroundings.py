"""Switches travel as they are, and what would train otherwise than it says is refused."""

import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

import stalegrid
from stalegrid.engines.surroundings import Surroundings, refuse_contexts
from stalegrid.errors import ConfigError
from tests.cases import images


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = Surroundings.here()
    yield
    before.apply()


def test_every_switch_is_set_in_another_process_as_it_is_here() -> None:
    plain = Surroundings.here()
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("medium")
    torch.set_flush_denormal(True)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_math_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.set_flags(False)
    torch.backends.cudnn.enabled = False
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.autograd.set_detect_anomaly(True)
    changed = Surroundings.here()
    same = [name for name, value in plain.switches.items() if changed.switches[name] == value]
    assert not same
    sent = pickle.dumps(changed)
    plain.apply()
    assert Surroundings.here().switches == plain.switches
    pickle.loads(sent).apply()
    assert Surroundings.here().switches == changed.switches
    assert changed.text() != plain.text()


def test_a_hook_that_is_registered_later_does_not_take_the_place_of_one_that_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = nn.Linear(1, 1)
    module.register_forward_pre_hook(_halve)
    sent = pickle.dumps((Surroundings.here(), module))
    monkeypatch.setattr(RemovableHandle, "next_id", 0)  # as in a new process
    surroundings, _ = pickle.loads(sent)
    surroundings.apply()
    found = pickle.loads(sent)[1]
    for _ in range(RemovableHandle.next_id):
        handle = found.register_forward_pre_hook(_halve)
        assert len(found._forward_pre_hooks) == 2
        handle.remove()


def _halve(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0] / 2,)


class Default(AbstractContextManager[None]):
    """Lets tensors be made elsewhere by default."""

    def __enter__(self) -> None:
        torch.set_default_device("meta")

    def __exit__(self, *_: object) -> None:
        torch.set_default_device(None)


@pytest.mark.parametrize("engine", ["simulator", "processes"])
@pytest.mark.parametrize(
    ("context", "told"),
    [
        (lambda: torch.autocast("cpu", dtype=torch.bfloat16), "autocast is active .*put it inside the model's forward"),
        (torch.no_grad, "gradients are switched off around the training"),
        (torch.inference_mode, "inference_mode is active around the training"),
        (Default, r"another device than the CPU by default \(default device: meta\)"),
    ],
    ids=["autocast", "no_grad", "inference_mode", "default_device"],
)
def test_contexts_around_the_call_are_refused_before_anything_starts(context, told: str, engine: str) -> None:  # type: ignore[no-untyped-def]
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), images()
    with context(), pytest.raises(ConfigError, match=told):
        stalegrid.train(
            model,
            data,
            loss=nn.CrossEntropyLoss(),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
            engine=engine,
            method="sgd",
            updates=1,
            batch_size=4,
            quiet=True,
        )


def test_nothing_is_refused_where_nothing_is_active() -> None:
    refuse_contexts()
