"""Switches travel as they are, and what would train otherwise than it says is refused."""

import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

import stalegrid
from stalegrid.engines.surroundings import Surroundings, refuse_contexts, refuse_global_hooks
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
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_accumulation = True
    torch.backends.mkldnn.set_flags(False, _deterministic=True)
    torch.backends.nnpack.set_flags(False)
    torch.backends.cudnn.enabled = False
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.autograd.set_detect_anomaly(True)
    changed = Surroundings.here()
    same = [name for name, value in plain.switches.items() if changed.switches[name] == value]
    finer = {name for name in plain.switches if name.startswith("float32 precision (")}
    assert not {name for name in same if "einsum" not in name} - finer
    _assert_sent(plain, changed)


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="this torch has no finer switches")
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("", "ieee"),
        ("", "tf32"),
        ("cuda.matmul", "ieee"),
        ("cudnn", "ieee"),
        ("cudnn.conv", "ieee"),
        ("cudnn.rnn", "ieee"),
        ("mkldnn", "bf16"),
        ("mkldnn.matmul", "tf32"),
        ("mkldnn.conv", "tf32"),
        ("mkldnn.rnn", "bf16"),
    ],
)
def test_finer_switches_of_precision_are_sent_though_torch_then_refuses_to_tell_the_coarse_ones(
    place: str, value: str
) -> None:
    torch.set_float32_matmul_precision("medium")
    plain = Surroundings.here()
    attrgetter(f"backends.{place}" if place else "backends")(torch).fp32_precision = value
    _assert_sent(plain, Surroundings.here())


@pytest.mark.skipif(not torch.backends.opt_einsum.is_available(), reason="opt_einsum is not installed")
def test_the_order_of_einsum_is_sent() -> None:
    plain = Surroundings.here()
    torch.backends.opt_einsum.strategy = "greedy"
    torch.backends.opt_einsum.enabled = False
    _assert_sent(plain, Surroundings.here())


def _assert_sent(plain: Surroundings, changed: Surroundings) -> None:
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
        (lambda: torch.autocast("cpu", dtype=torch.bfloat16), "autocast is .*precision bf16.*inside the model's"),
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


@pytest.mark.parametrize(
    ("register", "what"),
    [
        (nn.modules.module.register_module_forward_hook, "modules"),
        (nn.modules.module.register_module_full_backward_hook, "modules"),
        (register_optimizer_step_pre_hook, "optimizers"),
    ],
)
def test_hooks_of_all_modules_or_optimizers_are_refused_where_processes_are_started(register: Any, what: str) -> None:
    refuse_global_hooks()
    handle = register(lambda *_: None)
    try:
        with pytest.raises(ConfigError, match=f"registered for all {what} .*; register it on those that it is for"):
            refuse_global_hooks()
    finally:
        handle.remove()
    refuse_global_hooks()
