"""The stages of a cut model, each with a copy of its own as they will train, held against the model as a whole.

Does not know: how cuts are chosen, costs, groups, engines.

Only tensors cross a cut.  A counter of a module that two stages use, an object that two modules share, or a number that
the forward around a module reads of it stays behind, and one run of the whole does not show that.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.data import bytes_of
from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors, Thin, copied, hooks_of, nudge, tensors_in, tensors_of
from stalegrid.partition.trial import CPU, check, differing, same
from stalegrid.seeds import drawing

SUMMARY = "_gradient_summary"
"""The attribute of a thin parameter that has a digest of its gradient."""

BATCHES = 4
"""State is there after the first batch; a few more see a module that changes its ways after some."""


def check_apart(
    model: nn.Module,
    stages: Sequence[nn.Module],
    names: Sequence[str],
    batches: Sequence[Tensors],
    form: Form | None = None,
) -> None:
    """Run copies of the stages one after the other over a few batches, and hold them against a copy of the model.

    Outputs, the gradients of all parameters, and buffers must be the same to the bit.
    Parameters move in between, as they will: what a stage reads of another one's in any other way does not.

    Args:
        model: that was cut, in the mode in which it will run; left as it is.
        stages: its parts, with the model's own parameters; left as they are.
        names: of the cuts.
        batches: that are run in turn, again and again.
        form: how the model is called with them; None for one by one.

    Raises:
        ConfigError: the stages compute something else than the model.
    """
    found = first_difference(model, stages, batches, form)
    if found is not None:
        batch, problem = found
        raise ConfigError(
            f"the stages compute something else than the model (cuts: {', '.join(names)}, batch: {batch}): {problem}; "
            "what Python keeps in one stage does not reach another (a module or an object that both use, or an "
            "attribute that the forward around a module reads): keep it in a buffer that one stage uses, or cut "
            "elsewhere, also where a gradient rounds otherwise since it crosses in the memory layout of its value; and "
            "a forward that takes another way while it is captured, as attention of transformers may do for masks, "
            "must not (attn_implementation='eager' does not)"
        )


def first_difference(
    model: nn.Module,
    stages: Sequence[nn.Module],
    batches: Sequence[Tensors],
    form: Form | None = None,
    device: torch.device = CPU,
    *,
    exact: bool = True,
) -> tuple[int, str] | None:
    """Return at which batch stages first compute something else than their model, and what; None for nowhere.

    Args:
        model: see :func:`check_apart`.
        stages: likewise.
        batches: likewise.
        form: likewise.
        device: that copies of all of it go to.
        exact: whether gradients must be the same to the bit, and not up to rounding.

    Raises:
        ConfigError: the model does not accept a batch there.
        torch.OutOfMemoryError: there is not enough memory.
    """
    users = Counter(id(tensor) for stage in stages for tensor in tensors_of(stage).values())
    model, *stages = [_sparing(module, users).to(device) for module in (model, *stages)]
    for batch, given in enumerate(itertools.islice(itertools.cycle(batches), max(BATCHES, len(batches)))):
        inputs = tuple(x.to(device) for x in given)
        expected = check(model, inputs, form, device)
        problem = _difference(model, expected, stages, inputs, device, exact)
        if problem is not None:
            return batch, problem
        for module in (model, *stages):
            nudge(module)
    return None


def _sparing(module: nn.Module, users: Mapping[int, int]) -> nn.Module:
    """Return a copy of a module; where parameters are thin, gradients are not to take the memory that they lack.

    Args:
        module: the model or a stage.
        users: how many stages use a tensor, by identity; the gradients of several are summed, and stay whole.
    """
    own = copied(module)
    for (_, before), (_, parameter) in zip(module.named_parameters(), own.named_parameters(), strict=True):
        if isinstance(before, Thin) and parameter.requires_grad and users[id(before)] <= 1:
            parameter.register_post_accumulate_grad_hook(_summarise)  # type: ignore[no-untyped-call]
    return own


def _summarise(parameter: Tensor) -> None:
    """Keep a digest in the place of a gradient."""
    gradient = _taken(parameter)
    assert gradient is not None
    # Zero is added since it has two forms in bits, which are the same number.
    digest = hashlib.sha256(bytes_of(gradient + 0.0)).digest()
    parameter.grad, vars(parameter)[SUMMARY] = None, torch.tensor(list(digest), dtype=torch.uint8)


def repeats(model: nn.Module, inputs: Tensors, form: Form | None, device: torch.device) -> bool:
    """Return whether a model computes the same each time, which not all kernels of a GPU do.

    Args:
        model: left as it is.
        inputs: the tensors of one batch.
        form: how the model is called with them; None for one by one.
        device: that copies of all of it go to.
    """
    first, *others = (_computed(copied(model).to(device), inputs, form, device) for _ in range(BATCHES))
    return all(len(first) == len(other) and all(map(same, first, other)) for other in others)


def _computed(model: nn.Module, given: Tensors, form: Form | None, device: torch.device) -> list[Tensor]:
    outputs = tensors_in(check(model, tuple(x.to(device) for x in given), form, device))
    with drawing(device, 0, "trial backward"):
        _backward(outputs, [_slope(y) for y in outputs])
    gradients = [_taken(p) for p in model.parameters()]
    return [*outputs, *model.buffers(), *(g for g in gradients if g is not None)]


def _difference(
    model: nn.Module, expected: Any, stages: Sequence[nn.Module], inputs: Tensors, device: torch.device, exact: bool
) -> str | None:
    try:
        with drawing(device, 0, "trial"):
            runs = list(_through(stages, inputs))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a stage without what another one keeps can raise anything
        return next(iter(str(error).splitlines()), type(error).__name__)
    if differing(expected, runs[-1].made):
        return "its outputs differ"
    whole = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    own = [item for stage in stages for item in tensors_of(stage).items()]
    moved = next((f"{name} differs" for name, tensor in own if not same(tensor, whole[name])), None)
    return moved or _gradients(model, expected, runs, own, whole, device, exact)


@dataclass(frozen=True)
class _Run:
    """A forward of one stage: the leaves that it took, and what it made."""

    taken: Tensors
    made: Any


def _through(stages: Sequence[nn.Module], inputs: Tensors) -> Iterator[_Run]:
    tensors = tuple(x.clone() for x in inputs)
    for k, stage in enumerate(stages):
        leaves = tuple(x.detach().requires_grad_(k > 0 and x.is_floating_point()) for x in tensors)
        made = stage(*leaves)
        yield _Run(leaves, made)
        tensors = tensors_in(made)


def _gradients(
    model: nn.Module,
    expected: Any,
    runs: Sequence[_Run],
    own: Sequence[tuple[str, Tensor]],
    whole: dict[str, Tensor],
    device: torch.device,
    exact: bool,
) -> str | None:
    """Return the name of a parameter that gets another gradient from the stages than from the model, if one does."""
    try:
        # By one key each: a backward may draw, the last stage first, as the whole does.
        with drawing(device, 0, "trial backward"):
            _backward(tensors_in(expected), [_slope(y) for y in tensors_in(expected)])
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a model whose backward fails by itself is told of where an update is tried
        for tensor in whole.values():
            tensor.grad = None  # of what it came to before
        return None
    given: list[Tensor | None] = [_slope(y) for y in tensors_in(runs[-1].made)]
    try:
        with drawing(device, 0, "trial backward"):
            for run in reversed(runs):
                _backward(tensors_in(run.made), given)
                given = [x.grad for x in run.taken]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what the model's own backward does not raise
        return next(iter(str(error).splitlines()), type(error).__name__)
    names: dict[int, str] = {}
    parts: dict[str, list[Tensor | None]] = {}
    for name, tensor in reversed(own):  # the last stage first, as a backward goes
        one = names.setdefault(id(whole[name]), name)
        parts.setdefault(one, []).append(_taken(tensor))
    due = {name: _taken(whole[name]) for name in parts}
    hooked = hooks_of(model)
    # Hooks see the sum over all uses, which stages by themselves do not have.
    held = {name: g for name, g in parts.items() if len(g) == 1 or not hooked.keys() & _called(model, whole[name])}
    return next(
        (f"the gradient of {name} differs" for name, g in held.items() if not _alike(g, due[name], exact)), None
    )


def _called(model: nn.Module, tensor: Tensor) -> set[str]:
    """Return the names of a parameter."""
    return {name for name, one in model.named_parameters(remove_duplicate=False) if one is tensor}


def _taken(tensor: Tensor) -> Tensor | None:
    """Take a gradient away, so that the next one is not added to it."""
    if SUMMARY in vars(tensor):
        found: Tensor = vars(tensor).pop(SUMMARY)
        return found
    gradient, tensor.grad = tensor.grad, None
    return gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient


def _alike(parts: Sequence[Tensor | None], due: Tensor | None, exact: bool) -> bool:
    """Return whether the gradients that stages have of one parameter are that of the model."""
    given = [part for part in parts if part is not None]
    if not given or due is None:
        return not given and due is None
    if len(parts) == 1 and exact:
        return same(given[0], due)
    # Not to the bit: the uses in one stage are summed before those of another are added, which rounds otherwise.
    near = torch.finfo(due.dtype).eps ** 0.5
    return torch.allclose(sum(given[1:], given[0]), due, rtol=near, atol=near * float(due.abs().max()))


def _slope(output: Tensor) -> Tensor:
    """Return a gradient whose elements are not alike."""
    numbers = torch.linspace(0.5, 1.5, output.numel(), dtype=torch.float32).reshape(output.shape)
    return numbers.to(output.device, output.dtype)


def _backward(outputs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    pairs = [(y, g) for y, g in zip(outputs, gradients, strict=True) if y.requires_grad and g is not None]
    if pairs:
        torch.autograd.backward([y for y, _ in pairs], [g for _, g in pairs])
