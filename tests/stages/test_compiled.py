"""Stages that are compiled: the same as plain ones but for rounding, and exact where their backward is late."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stalegrid.errors import TrainingError
from stalegrid.stages import compiled
from stalegrid.stages.compiled import Compiled, fault_of_compiler
from stalegrid.stages.recomputing import RecomputingStage
from stalegrid.stages.stage import Stage
from stalegrid.stages.views.named import VIEWS, View
from tests.sites import DRAWING, linear, make_site, noise, step

pytestmark = pytest.mark.usefixtures("compiler")


class Mixed(nn.Module):
    """Draws, normalises by the batch, and has a weight that is made of two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.direction, self.scale = nn.Parameter(noise(8, 6, key=5)), nn.Parameter(noise(8, 1, key=6))
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.25)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.scale * self.direction / self.direction.norm(dim=1, keepdim=True)
        return self.drop(torch.tanh(self.norm(F.linear(x, weight))) * self.scale.squeeze(1).exp())


SHAPE = (5, 6)


def stage_of(module: nn.Module, *, view: str = "stashed", compiles: bool = True) -> Stage:
    own: View = VIEWS[view](make_site(module))
    kind = RecomputingStage if own.recomputes else Stage
    return kind(module, own.weights, own, False, compiles=compiles)


def trained(*, late: bool, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Return outputs of two batches, and all gradients of the first and the buffers after its backward."""
    module = Mixed()
    stage = stage_of(module, **options)
    outputs = []
    for batch in range(2):
        with DRAWING(batch):
            outputs += stage.forward(batch, (noise(*SHAPE, key=batch),))[0]
    if late:
        step(stage.view.site, stage.view, key=9)
        stage.weights.zero_grad()
    with DRAWING(0):
        stage.recompute(0)
    (below,) = stage.backward(0, (noise(*outputs[0].shape, key=7),))
    assert below is not None
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return outputs, [*gradients, below, *module.buffers()]


@pytest.mark.parametrize("view", ["stashed", "recomputed"])
@pytest.mark.parametrize("late", [True, False])
def test_it_computes_what_a_plain_stage_does(view: str, late: bool) -> None:
    found, plain = (trained(late=late, view=view, compiles=compiles) for compiles in (True, False))
    for one, other in zip([*found[0], *found[1]], [*plain[0], *plain[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_late_backward_is_exactly_one_in_time() -> None:
    """Though it makes some of what the forward has made once more, of parameters."""
    late, in_time = (trained(late=late)[1] for late in (True, False))
    assert all(torch.equal(one, other) for one, other in zip(late, in_time, strict=True))


def test_what_is_drawn_is_what_is_drawn_without_a_compiler() -> None:
    """Else nobody could hold it against a plain loop."""
    drops = [stage_of(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), compiles=c) for c in (True, False)]
    zeros = []
    for stage in drops:
        with DRAWING(0):
            (made,), _ = stage.forward(0, (noise(50, 3),))
        zeros.append(made == 0)
    assert torch.equal(*zeros)
    assert 20 < int(zeros[0].sum()) < 80


class Counting:
    """Counts what is compiled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        code = compiled._code

        def counted(*args: Any) -> Any:
            self.number += 1
            return code(*args)

        monkeypatch.setattr(compiled, "_code", counted)


def test_units_of_a_process_do_not_take_each_other_s_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch keeps eight for one code and then computes without a word what it has not compiled."""
    counting = Counting(monkeypatch)
    units = [Compiled(linear(), None) for _ in range(10)]
    for _ in range(2):
        outputs = [unit((noise(4, 3),)) for unit in units]
    assert counting.number == 10
    assert all(torch.equal(outputs[0], other) for other in outputs)


def test_each_shape_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counting, unit = Counting(monkeypatch), Compiled(linear(), None)
    for _ in range(2):
        for size in (4, 3, 1):
            assert unit((noise(size, 3),)).shape == (size, 2)
    assert counting.number == 3


class Remembering(nn.Module):
    """Counts batches, in a buffer, an attribute and statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.detach().sum()
        return self.norm(x)


def test_a_stage_is_compiled_before_any_batch_and_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    counting, module = Counting(monkeypatch), Remembering()
    stage = stage_of(module)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    stage.prepare((torch.zeros(4, 3),))
    assert counting.number == 1
    assert module.last is None
    assert stage.nbytes == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    stage.forward(0, (noise(4, 3),))
    assert counting.number == 1
    assert int(module.norm.num_batches_tracked or 0) == 1
    torch.testing.assert_close(module.last, noise(4, 3).sum())


class Counted(nn.Module):
    """Counts in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.number = linear(), 0

    def forward(self, x: Tensor) -> Any:
        self.number += 1
        return self.inner(x)


class Branching(nn.Module):
    """Looks at numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


@pytest.mark.parametrize(("kind", "why"), [(Counted, "another thing at every forward"), (Branching, "ranching")])
def test_what_cannot_be_compiled_is_not_computed_otherwise_in_silence(kind: type[nn.Module], why: str) -> None:
    unit = Compiled(kind(), None)
    said = rf"cannot compile a forward in one piece \(module: {kind.__name__}\): .*{why}.*or leave"
    with pytest.raises(TrainingError, match=said):  # noqa: PT012
        for _ in range(20):
            unit((noise(4, 3),))


def test_weights_that_are_swapped_are_those_that_are_computed_with() -> None:
    stage = stage_of(linear(), view="double-buffered")
    weights, other = stage.weights, noise(stage_of(linear()).weights.trained, key=3)
    stage.view.forwarding = lambda batch: (0, other)  # type: ignore[method-assign]
    (found,), _ = stage.forward(0, (noise(4, 3),))
    module = linear()
    for entry, p in zip(weights.entries, module.parameters(), strict=True):
        p.data = entry.view(other)
    torch.testing.assert_close(found, module(noise(4, 3)).detach())
    assert not torch.equal(weights.flat[: weights.trained], other)


def test_here_something_can_be_compiled() -> None:
    assert fault_of_compiler() is None


def test_it_is_said_where_nothing_can_be() -> None:
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        why = fault_of_compiler()
    assert why is not None
    assert "ompiler" in why
    with torch.compiler.set_stance("force_eager"):
        assert fault_of_compiler() == "it is told to compile nothing"


def test_nothing_of_the_process_is_changed() -> None:
    inductor = torch._inductor.config
    before = inductor.fallback_random, inductor.compile_threads, inductor.cpp.threads
    Compiled(linear(), None)((noise(2, 3),))
    assert before == (inductor.fallback_random, inductor.compile_threads, inductor.cpp.threads)
