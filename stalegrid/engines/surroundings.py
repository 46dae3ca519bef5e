"""What surrounds a call of :func:`stalegrid.train` in its process and changes numbers: switches of torch, and contexts.

Does not know: what is trained, which processes there are.

Worker processes begin with the switches that torch has at its start.  They take over those of the process that started
them, so that both compute the same.  A context around the call, such as ``autocast`` or ``no_grad``, cannot travel and
would not mean there what it says: it is refused.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.backends import opt_einsum  # by name: torch 2.8 has it only once it was asked for
from torch.utils.hooks import RemovableHandle

from stalegrid.errors import ConfigError

_cuda, _cudnn = torch.backends.cuda, torch.backends.cudnn

Switch = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Tells what something is set to, and sets it."""


def _attribute(holder: Any, name: str) -> Switch:
    return lambda: getattr(holder, name), lambda value: setattr(holder, name, value)


def _told(get: Callable[[], Any]) -> Callable[[], Any]:
    """Let a switch tell nothing (None) where torch refuses, since one of its finer switches was set."""

    def told() -> Any:
        try:
            return get()
        except RuntimeError:
            return None

    return told


def _sums(name: str) -> Switch:
    """Return how products of matrices may be summed, which newer torch tells of parts of them too."""
    parts = f"{name}_split_k"

    def get() -> Any:
        whole = getattr(_cuda.matmul, name)
        return (whole, getattr(_cuda.matmul, parts)) if hasattr(_cuda.matmul, parts) else whole

    return get, lambda value: setattr(_cuda.matmul, name, value)


def _precision(backend: str, of: str) -> Switch:
    return (
        lambda: torch._C._get_fp32_precision_getter(backend, of),
        lambda value: torch._C._set_fp32_precision_setter(backend, of, value),
    )


# Each after those that it would take over.
_PRECISIONS = {
    f"float32 precision ({backend}, {of})": _precision(backend, of)
    for backend, kinds in (
        ("generic", ["all"]),
        ("cuda", ["all", "matmul", "conv", "rnn"]),
        ("mkldnn", ["all", "matmul", "conv", "rnn"]),
    )
    for of in kinds
    if hasattr(torch._C, "_get_fp32_precision_getter")  # not in torch 2.8
}

# Untyped, because torch's own switches are.
_SWITCHES: dict[str, Switch] = {
    "default dtype": (
        lambda: str(torch.get_default_dtype()).removeprefix("torch."),
        lambda name: torch.set_default_dtype(getattr(torch, name)),
    ),
    "deterministic algorithms": (
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    "deterministic fill": (
        lambda: torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        lambda on: setattr(torch.utils.deterministic, "fill_uninitialized_memory", on),
    ),
    "float32 matmul precision": (_told(torch.get_float32_matmul_precision), torch.set_float32_matmul_precision),
    "TF32 of cuDNN": (_told(lambda: _cudnn.allow_tf32), lambda on: setattr(_cudnn, "allow_tf32", on)),
    **_PRECISIONS,
    "sums of float16": _sums("allow_fp16_reduced_precision_reduction"),
    "sums of bfloat16": _sums("allow_bf16_reduced_precision_reduction"),
    "sums in float16": _attribute(_cuda.matmul, "allow_fp16_accumulation"),
    "flushing of denormal numbers": (lambda: _flushes(), torch.set_flush_denormal),
    "anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "fast path of attention": (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    "flash attention": (_cuda.flash_sdp_enabled, _cuda.enable_flash_sdp),
    "memory-efficient attention": (_cuda.mem_efficient_sdp_enabled, _cuda.enable_mem_efficient_sdp),
    "plain attention": (_cuda.math_sdp_enabled, _cuda.enable_math_sdp),
    "attention of cuDNN": (_cuda.cudnn_sdp_enabled, _cuda.enable_cudnn_sdp),
    "sums of plain attention": (
        _cuda.fp16_bf16_reduction_math_sdp_allowed,
        _cuda.allow_fp16_bf16_reduction_math_sdp,
    ),
    "oneDNN": (
        lambda: torch._C._get_mkldnn_enabled(),
        lambda on: torch._C._set_mkldnn_enabled(on),
    ),
    "deterministic oneDNN": _attribute(torch.backends.mkldnn, "deterministic"),
    "NNPACK": (
        lambda: torch._C._get_nnpack_enabled(),
        torch.backends.nnpack.set_flags,
    ),
    "choice of the order of einsum": _attribute(opt_einsum, "strategy"),
    "order of einsum": _attribute(opt_einsum, "enabled"),
    "cuDNN": _attribute(_cudnn, "enabled"),
    "choice of cuDNN by speed": _attribute(_cudnn, "benchmark"),
    "deterministic cuDNN": _attribute(_cudnn, "deterministic"),
}


@dataclass(frozen=True)
class Surroundings:
    """The switches of a process.

    Args:
        switches: what each is set to, by its name; plain values, None where torch does not tell.
        handles: hooks of modules that were registered so far.  A hook keeps its number where a module is sent to
            another process; one that is registered there must not get the same, or it would replace it.
    """

    switches: dict[str, Any]
    handles: int

    @classmethod
    def here(cls) -> "Surroundings":
        """Return those of this process."""
        return cls({name: get() for name, (get, _) in _SWITCHES.items()}, RemovableHandle.next_id)

    def apply(self) -> None:
        """Set the switches of this process; to be called before anything is registered."""
        for name, value in self.switches.items():
            get, switch = _SWITCHES[name]
            if value is not None and get() != value:
                switch(value)
        RemovableHandle.next_id = max(RemovableHandle.next_id, self.handles)

    def text(self) -> str:
        """Return the switches as text that is equal where they are."""
        return json.dumps(self.switches, sort_keys=True)


def refuse_contexts() -> None:
    """Refuse contexts around the call under which nothing could be trained, or not what was meant.

    Raises:
        ConfigError: autocast, no_grad, inference_mode or a default device other than the CPU is active.
    """
    kinds = ("cpu", "cuda")
    # An outer autocast keeps its casts of the weights until its end: training would go on with those of the start.
    if cast := [kind for kind in kinds if torch.is_autocast_enabled(kind)]:
        raise ConfigError(
            f"autocast is active around the training (device: {cast[0]}), where it would keep casts of weights that "
            "have changed; take precision bf16 (precision='bf16'), or put it inside the model's forward"
        )
    if torch.is_inference_mode_enabled():
        raise ConfigError("inference_mode is active around the training, which needs gradients; leave it before")
    if not torch.is_grad_enabled():
        raise ConfigError("gradients are switched off around the training (no_grad); switch them on before")
    if (device := _default_device()).type != "cpu":
        raise ConfigError(
            f"tensors are made on another device than the CPU by default (default device: {device}); reset it with "
            "torch.set_default_device('cpu'), and name the device of the training with the setting device"
        )


def _default_device() -> torch.device:
    try:
        return torch.get_default_device()
    except AttributeError:  # torch 2.8 fails where a default was taken back
        return torch.device("cpu")


_GLOBAL_HOOKS = {
    "modules": (
        torch.nn.modules.module,
        ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks"),
    ),
    "optimizers": (
        sys.modules["torch.optim.optimizer"],  # torch.optim hides it
        ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"),
    ),
}
"""Where torch keeps hooks of all modules and of all optimizers."""


def refuse_global_hooks() -> None:
    """Refuse hooks of all modules or optimizers, which processes that are started would not have.

    Raises:
        ConfigError: there is one.
    """
    for what, (owner, names) in _GLOBAL_HOOKS.items():
        found = [name for name in names if getattr(owner, name, None)]
        if found:
            raise ConfigError(
                f"a hook is registered for all {what} (torch keeps it in: {found[0]}), which worker processes do not "
                "have; register it on those that it is for, or use the simulator"
            )


def _flushes() -> bool:
    """Return whether this processor takes numbers near 0 for 0; torch can set this, not tell it."""
    smallest = torch.tensor(5e-324, dtype=torch.float64, device="cpu")
    return bool((smallest * 1.0).view(torch.int64) == 0)
