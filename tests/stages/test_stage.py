import copy
import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stalegrid.objects.states import joined, parted
from stalegrid.partition.trace import trace
from stalegrid.programs.schedules import Schedule
from stalegrid.seeds import drawing
from stalegrid.stages.recomputing import RecomputingStage
from stalegrid.stages.site import Site
from stalegrid.stages.stage import Stage
from stalegrid.stages.views.named import VIEWS, View
from tests.sites import DRAWING, make_site, noise

CPU = torch.device("cpu")


class Residual(nn.Module):
    """Convolution, batch-norm, dropout, in-place ReLU, a skip connection and a transposed use of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.relu(self.norm(self.conv(x)))) + x
        return F.linear(self.fc(h.flatten(1)), self.fc.weight.t()[:4], None)


def build(model: Callable[[], nn.Module]) -> nn.Module:
    with drawing(CPU, 0, "model"):
        return model()


def stage_of(module: nn.Module, view: str = "stashed", first: bool = False) -> Stage:
    """Return a stage whose forwards draw by their batch."""
    # Six micro-batches, so that the double-buffered view forwards batches 0 to 5 at version 0.
    site = make_site(module, schedule=Schedule((2, 1), 6, delay=VIEWS[view].delay), optimizer=momentum)
    kind = RecomputingStage if VIEWS[view].recomputes else Stage
    stage = kind(module, site.weights, VIEWS[view](site), first)
    for forward in ("forward", "recompute"):
        setattr(stage, forward, drawn(getattr(stage, forward)))
    return stage


def drawn(forward: Callable[..., Any]) -> Callable[..., Any]:
    def within(batch: int, *given: Any) -> Any:
        with DRAWING(batch):
            return forward(batch, *given)

    return within


def momentum(given: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(given or [torch.zeros(1)], momentum=0.9)


def update(stage: Stage, amount: float = 0.125) -> None:
    """Change all parameters in place, as an optimizer does."""
    stage.view.overwriting()
    stage.view.site.versions.overwriting()
    with torch.no_grad():
        for p in stage.module.parameters():
            p.mul_(1 - amount).add_(amount)
    stage.weights.version += 1


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {n: p.grad for n, p in module.named_parameters()}


def equal(one: dict[str, Tensor | None], other: dict[str, Tensor | None]) -> bool:
    return one.keys() == other.keys() and all(
        g is not None and h is not None and torch.equal(g, h) for g, h in zip(one.values(), other.values(), strict=True)
    )


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_stashed_backward_is_the_exact_gradient_at_the_weights_of_the_forward(delay: int) -> None:
    stage = stage_of(build(Residual))
    exact: list[tuple[dict[str, Tensor | None], Tensor]] = []
    graph = 0
    for n in range(6):
        x, g = noise(3, 2, 3, 3, key=n), noise(3, 4, key=100 + n)
        then = copy.deepcopy(stage.module)
        leaf = x.clone().requires_grad_()
        with DRAWING(n):
            expected = then(leaf)
        expected.backward(g)
        assert leaf.grad is not None
        exact.append((gradients(then), leaf.grad))
        (made,), version = stage.forward(n, (x,))
        assert version == max(0, n - delay)
        assert torch.equal(made, expected)
        graph = graph or stage.nbytes
        if n >= delay:
            b = n - delay
            stage.weights.zero_grad()
            (below,) = stage.backward(b, (noise(3, 4, key=100 + b),))
            assert equal(gradients(stage.module), exact[b][0])
            assert torch.equal(below, exact[b][1])
            update(stage)
    assert stage.nbytes == delay * graph
    assert graph


def test_versions_make_a_difference() -> None:
    stage = stage_of(build(Residual))
    x, g = noise(3, 2, 3, 3), noise(3, 4)
    stage.forward(0, (x,))
    update(stage)
    now = copy.deepcopy(stage.module)
    stage.backward(0, (g,))
    with DRAWING(0):
        now(x).backward(g)
    assert not equal(gradients(stage.module), gradients(now))


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 5, bias=False)
        self.two = nn.Linear(5, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def test_current_backward_uses_the_old_activations_and_the_new_weights() -> None:
    model = build(TwoLayers)
    stage = stage_of(model, "current")
    x, g = noise(4, 3), noise(4, 2)
    with torch.no_grad():
        old_hidden = model.one(x)
    _, version = stage.forward(0, (x,))
    assert version == 0
    update(stage)
    update(stage)
    new_one, new_two = model.one.weight.detach(), model.two.weight.detach()
    (below,) = stage.backward(0, (g,))
    assert torch.equal(model.two.weight.grad, g.t() @ old_hidden)
    hidden_gradient = g @ new_two
    assert torch.equal(model.one.weight.grad, hidden_gradient.t() @ x)
    assert torch.equal(below, hidden_gradient @ new_one)


@pytest.mark.parametrize("view", VIEWS)
def test_without_updates_in_between_every_view_is_plain_autograd(view: str) -> None:
    model = build(Residual)
    plain = copy.deepcopy(model)
    stage = stage_of(model, view)
    x, g = noise(3, 2, 3, 3), noise(3, 4)
    (made,), version = stage.forward(5, (x,))
    assert version == 0
    stage.recompute(5)
    below = stage.backward(5, (g,))
    leaf = x.clone().requires_grad_()
    with DRAWING(5):
        expected = plain(leaf)
    expected.backward(g)
    assert torch.equal(made, expected)
    assert equal(gradients(model), gradients(plain))
    assert torch.equal(below[0], leaf.grad)


def test_backwards_add_up_over_micro_batches() -> None:
    model = build(TwoLayers)
    plain = copy.deepcopy(model)
    stage = stage_of(model)
    for b in range(3):
        stage.forward(b, (noise(4, 3, key=b),))
    for b in range(3):
        stage.backward(b, (noise(4, 2, key=b),))
        plain(noise(4, 3, key=b)).backward(noise(4, 2, key=b))
    assert equal(gradients(model), gradients(plain))


def test_batches_may_finish_in_any_order() -> None:
    stage = stage_of(build(TwoLayers))
    then = []
    for b in range(3):
        then.append(copy.deepcopy(stage.module))
        assert stage.forward(b, (noise(4, 3, key=b),))[1] == b
        update(stage)
    for b in (1, 2, 0):
        stage.weights.zero_grad()
        stage.backward(b, (noise(4, 2),))
        then[b](noise(4, 3, key=b)).backward(noise(4, 2))
        assert equal(gradients(stage.module), gradients(then[b]))
    assert stage.nbytes == stage.view.site.versions.nbytes == 0


def test_a_copy_lives_until_the_last_batch_of_its_version_has_finished() -> None:
    stage = stage_of(build(TwoLayers))
    for b in range(2):
        stage.forward(b, (noise(4, 3),))
    update(stage)
    copied = weakref.ref(stage.view.seen(0))
    stage.backward(0, (noise(4, 2),))
    assert copied() is not None
    stage.backward(1, (noise(4, 2),))
    assert copied() is None


class Remembering(nn.Module):
    """An operation that saves its own output, which is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.made: list[weakref.ref[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        y = torch.exp(self.fc(x))
        self.made.append(weakref.ref(y))
        return y


def test_activations_are_freed_with_their_batch_and_without_the_garbage_collector() -> None:
    model = Remembering()
    stage = stage_of(model)
    gc.collect()
    gc.disable()
    try:
        stage.forward(0, (noise(2, 3),))
        assert model.made[0]() is not None
        stage.backward(0, (noise(2, 3),))
        assert model.made[0]() is None
    finally:
        gc.enable()


def test_activations_that_no_output_needs_are_freed_at_once() -> None:
    class Cut(Remembering):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    model = Cut()
    gc.collect()
    gc.disable()
    try:
        stage_of(model).forward(0, (noise(2, 3),))
        assert model.made[0]() is None
    finally:
        gc.enable()


class Spoiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.exp(self.fc(x))
        y.mul_(2.0)
        return y


def test_changing_a_saved_activation_in_place_is_an_error() -> None:
    stage = stage_of(Spoiled())
    stage.forward(0, (noise(2, 3),))
    with pytest.raises(RuntimeError, match=r"modified in place by the model \(shape: \(2, 3\)\)"):
        stage.backward(0, (noise(2, 3),))


def test_changing_an_output_in_place_afterwards_is_an_error_at_its_stage() -> None:
    stage = stage_of(Remembering())
    (made,), _ = stage.forward(0, (noise(2, 3),))
    made.add_(1.0)
    with pytest.raises(RuntimeError, match="modified in place"):
        stage.backward(0, (noise(2, 3),))


class Words(nn.Module):
    """(integers, floats, floats) -> (floats that use both, integers, floats passed through, floats of no parameter)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)

    def forward(self, words: Tensor, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.embedding(words) * x, words + 1, skip, (words > 2).float()


def test_tuples_with_integers_and_values_that_pass_through() -> None:
    model = build(Words)
    plain = copy.deepcopy(model)
    stage = stage_of(model)
    words, x, skip = torch.tensor([4, 1]), noise(2, 3), noise(2, 2, key=1)
    made, _ = stage.forward(0, (words, x, skip))
    x1, skip1 = x.clone().requires_grad_(), skip.clone().requires_grad_()
    expected = plain(words, x1, skip1)
    assert len(made) == 4
    for y, z in zip(made, expected, strict=True):
        assert torch.equal(y, z)
        assert y.dtype == z.dtype
        assert not y.requires_grad
    update(stage)
    of_product, of_skip, of_mask = noise(2, 3, key=2), noise(2, 2, key=3), noise(2, key=4)
    below = stage.backward(0, (of_product, of_skip, of_mask))
    torch.autograd.backward([expected[0], expected[2]], [of_product, of_skip])
    assert len(below) == 2
    assert torch.equal(below[0], x1.grad)
    assert torch.equal(below[1], skip1.grad)
    assert torch.equal(below[1], of_skip)
    assert equal(gradients(model), gradients(plain))


class Ignoring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(x) + y.detach()


def test_an_input_that_nothing_depends_on_has_no_gradient() -> None:
    stage = stage_of(Ignoring())
    stage.forward(0, (noise(2, 3), noise(2, 3)))
    below = stage.backward(0, (noise(2, 3),))
    assert below[1] is None
    assert below[0].any()


def test_an_output_without_a_gradient_gives_none_to_what_feeds_it_alone() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(x), self.b(x)

    stage = stage_of(Fork())
    for given in ((noise(2, 2), None), (None, None)):
        stage.forward(0, (noise(2, 3),))
        below = stage.backward(0, given)
        assert [g is None for g in below] == [given[0] is None]
        assert stage.module.b.weight.grad is None


def test_the_first_stage_needs_no_gradient_of_the_data() -> None:
    class Pass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.fc(x), x

    model = Pass()
    stage = stage_of(model, first=True)
    x = noise(4, 3)
    made, _ = stage.forward(0, (x,))
    assert torch.equal(made[1], x)
    below = stage.backward(0, (noise(4, 2), noise(4, 3)))
    assert below == ()
    assert torch.equal(model.fc.weight.grad, noise(4, 2).t() @ x)
    assert x.grad is None
    assert not x.requires_grad


def test_a_gradient_for_every_floating_output_is_due() -> None:
    stage = stage_of(build(Words))
    stage.forward(0, (torch.tensor([4, 1]), noise(2, 3), noise(2, 2)))
    with pytest.raises(ValueError, match="zip"):
        stage.backward(0, (noise(2, 3),))


def test_a_head_turns_outputs_into_the_loss() -> None:
    model = build(TwoLayers)
    plain = copy.deepcopy(model)
    stage = stage_of(model)
    targets = torch.tensor([0, 1, 1, 0])
    (loss,), _ = stage.forward(0, (noise(4, 3),), lambda y: F.cross_entropy(y, targets))
    stage.backward(0, (torch.tensor(1.0),))
    expected = F.cross_entropy(plain(noise(4, 3)), targets)
    expected.backward()
    assert loss.shape == ()
    assert torch.equal(loss, expected)
    assert equal(gradients(model), gradients(plain))


def test_running_statistics_are_updated_once_a_batch() -> None:
    stage = stage_of(build(Residual))
    plain = copy.deepcopy(stage.module)
    for b in range(3):
        stage.forward(b, (noise(3, 2, 3, 3, key=b),))
        with DRAWING(b):
            plain(noise(3, 2, 3, 3, key=b))
    for b in range(3):
        stage.backward(b, (noise(3, 4),))
        update(stage)
    assert int(stage.module.norm.num_batches_tracked) == 3
    assert torch.equal(stage.module.norm.running_mean, plain.norm.running_mean)
    assert torch.equal(stage.module.norm.running_var, plain.norm.running_var)


def test_the_module_keeps_its_modes() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5).eval())
    assert [part.training for part in stage_of(module).module.modules()] == [True, True, False]


class ComplexWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(noise(4, 2))
        self.two = nn.Parameter(noise(4, 2, key=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(self.one) * torch.view_as_complex(self.two).conj() * x)


def test_parameters_viewed_as_complex_numbers() -> None:
    model = ComplexWeights()
    plain = copy.deepcopy(model)
    stage = stage_of(model, first=True)
    stage.forward(0, (noise(4),))
    stage.backward(0, (noise(4, 2),))
    plain(noise(4)).backward(noise(4, 2))
    assert equal(gradients(model), gradients(plain))


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.use_reentrant = use_reentrant

    def _layers(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self._layers, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_stashed_backward_through_a_checkpoint_is_exact_or_an_error(use_reentrant: bool) -> None:
    model = Checkpointed(use_reentrant)
    stage = stage_of(model)
    plain = copy.deepcopy(model)
    plain(noise(2, 3).requires_grad_()).backward(noise(2, 3))
    try:
        stage.forward(0, (noise(2, 3),))
        update(stage)
        stage.backward(0, (noise(2, 3),))
    except RuntimeError:
        return
    assert equal(gradients(model), gradients(plain))


def test_an_output_that_views_the_weights_does_not_change_with_them() -> None:
    class Weight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(noise(2, 3))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * self.w, self.w.t()

    for view in ("stashed", "recomputed"):
        stage = stage_of(build(Weight), view)
        ((_, made), _) = stage.forward(0, (noise(2, 3),))
        before = made.clone()
        update(stage)
        assert torch.equal(made, before), view


class Remembers(nn.Module):
    """Hands on what it keeps, and changes that at its next forward."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(3, 3)
        self.register_buffer("count", torch.zeros(3, dtype=torch.int64))
        self.attribute = torch.zeros(3)
        self.listed = [torch.zeros(3)]
        self.reused = torch.empty(2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(x)
        if self.kind == "output with a gradient":
            self.reused = self.reused.detach_().copy_(y)
            return y, self.reused
        kept = {
            "counter": self.count,
            "attribute": self.attribute,
            "in a list": self.listed[0],
            "outside of the module": OUTSIDE,
            "input": x.detach(),
        }[self.kind]
        if self.kind != "input":
            kept += 1
        return y, kept[:2]


OUTSIDE = torch.zeros(3)


@pytest.mark.parametrize("view", ["stashed", "recomputed"])
@pytest.mark.parametrize(
    "kind", ["counter", "attribute", "in a list", "outside of the module", "input", "output with a gradient"]
)
def test_what_was_handed_on_does_not_change_with_what_the_module_keeps(kind: str, view: str) -> None:
    stage = stage_of(build(lambda: Remembers(kind)), view, first=True)
    data = noise(2, 3)
    ((_, made), _) = stage.forward(0, (data,))
    before = made.clone()
    data += 1  # a loader may use its memory again
    stage.forward(1, (noise(2, 3, key=1),))
    assert torch.equal(made, before)


def test_an_activation_is_handed_on_without_a_copy() -> None:
    stage = stage_of(build(lambda: nn.Linear(3, 3)))
    ((made,), _) = stage.forward(0, (noise(2, 3),))
    assert made.data_ptr() == stage.outputs(0)[0].data_ptr()


class TwoTanh(nn.Module):
    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.checkpointed = checkpointed

    def _layers(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self._layers, x, use_reentrant=False) if self.checkpointed else self._layers(x)


class Elsewhere(View):
    """Forwards and goes backward at a vector of its own."""

    elsewhere = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.vector = self.weights.flat[: self.weights.trained] * 2 + 1

    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        return self.weights.version, self.vector

    def seen(self, version: int) -> Tensor:
        return self.vector


def test_a_view_may_forward_and_go_backward_at_other_weights_than_those_of_now() -> None:
    model = build(Residual)
    site = make_site(model)
    stage = Stage(model, site.weights, Elsewhere(site), first=False)
    before = site.weights.flat.clone()
    shown = copy.deepcopy(model)
    with torch.no_grad():
        for p in shown.parameters():
            p.mul_(2).add_(1)
    x = noise(3, 2, 3, 3).requires_grad_()
    with DRAWING(0):
        expected = shown(x)
    expected.backward(noise(3, 4))
    with DRAWING(0):
        ((made,), _) = stage.forward(0, (x.detach(),))
    assert torch.equal(made, expected)
    assert torch.equal(site.weights.flat[: site.weights.trained], before[: site.weights.trained])
    (below,) = stage.backward(0, (noise(3, 4),))
    assert torch.equal(below, x.grad)
    assert equal(gradients(model), gradients(shown))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), shown.buffers(), strict=True))


def test_checkpointing_is_refused_where_the_weights_have_changed_since_the_forward() -> None:
    stage = stage_of(build(partial(TwoTanh, checkpointed=True)), "current")
    stage.forward(0, (noise(2, 3),))
    stage.forward(1, (noise(2, 3),))
    stage.backward(0, (noise(2, 3),))
    update(stage)
    with pytest.raises(RuntimeError, match=r"a forward again in its backward \(module: Linear\)"):
        stage.backward(1, (noise(2, 3),))


def test_checkpointing_is_refused_where_the_backward_uses_other_weights_than_those_of_now() -> None:
    model = build(partial(TwoTanh, checkpointed=True))
    site = make_site(model)
    stage = Stage(model, site.weights, Elsewhere(site), first=False)
    stage.forward(0, (noise(2, 3),))
    with pytest.raises(RuntimeError, match=r"a forward again in its backward \(module: Linear\)"):
        stage.backward(0, (noise(2, 3),))


def test_constants_of_a_traced_forward_are_not_held_by_batches() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("scale", torch.full((4,), 2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) * self.scale

    class Making(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) * torch.full((4,), 2.0)

    def held(model: nn.Module) -> int:
        chain = trace(model.train(), (noise(3, 4),))
        stage = stage_of(chain.stage(0, len(chain.nodes)))
        stage.forward(0, (noise(3, 4),))
        return stage.nbytes

    assert held(build(Making)) == held(build(Scaled)) > 0


@pytest.mark.parametrize("view", ["stashed", "current"])
def test_what_a_forward_computes_from_weights_is_an_activation(view: str) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight * 2)

    stage = stage_of(build(lambda: Doubled(4, 4, bias=False)), view)
    weight = stage.module.weight.detach().clone()
    stage.forward(0, (noise(3, 4),))
    update(stage)
    (gradient,) = stage.backward(0, (torch.ones(3, 4),))
    assert torch.equal(gradient, torch.ones(3, 4) @ (weight * 2))
    assert not torch.equal(weight, stage.module.weight)


def test_a_version_that_the_view_holds_is_saved_once() -> None:
    stage = stage_of(nn.Linear(3, 2), "stashed")
    trained, shown = stage.weights.trained, stage.weights.flat.clone()
    for batch in range(2):
        stage.keep(batch)
        stage.forward(batch, (noise(4, 3),))
    update(stage)
    stage.weights.version += 1
    saved = [made_of[2] for made_of in stage.state_dict()["batches"].values()]
    assert all(weights is stage.view.seen(0) for weights in saved)
    assert torch.equal(saved[0], shown[:trained])
    plain, tensors = parted({"batches": saved, "versions": stage.view.site.versions.state_dict()})
    assert sum(tensor.nbytes for tensor in tensors.values()) == saved[0].nbytes
    assert torch.equal(joined(plain, tensors)["batches"][1], shown[:trained])
