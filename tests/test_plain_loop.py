"""Models as people write them, held against a plain torch loop that knows nothing of this library, bit for bit.

Without staleness, and with one group or one learner, every way to train is that loop.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.consensus.settings import MixingSettings
from stalegrid.data import Batches
from tests import cases

torch.set_num_threads(1)

UPDATES, BATCH, SEED = 6, 8, 3

WAYS: dict[str, dict[str, Any]] = {
    "sgd": {"method": "sgd"},
    "1f1b": {"method": "1f1b", "groups": 1, "stages": 2, "micro_batches": 1},
    "pipedream": {"method": "pipedream", "groups": 1, "stages": 2, "staleness": [0, 0]},
    "dsp": {"method": "dsp", "groups": 1, "stages": 2, "staleness": [0, 0]},
    "hardsync": {"method": "hardsync", "learners": 1},
    "softsync": {"method": "softsync", "learners": 1, "servers": 2},
}


class Net(nn.Module):
    """Two halves with something in between."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.middle, self.b = nn.Linear(6, 8), middle or nn.Identity(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.middle(torch.tanh(self.a(x))))


class Spare(Net):
    """One layer is never used, one only for some batches."""

    def __init__(self) -> None:
        super().__init__()
        self.spare, self.now_and_then = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.b(h + self.sometimes(x, h))

    def sometimes(self, x: Tensor, h: Tensor) -> Tensor:
        return self.now_and_then(h) if x[0, 0] > 0 else torch.zeros_like(h)


class Sometimes(nn.Module):
    """A branch that only some batches take, in a module that tracing keeps whole."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(8, 8)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.branch(h) if h[0, 0] > 0 else h * 2


class Turned(nn.Module):
    """Rotary positions: a table of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turns", torch.polar(torch.ones(4), torch.arange(4.0)))

    def forward(self, h: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(h.float().reshape(-1, 4, 2)) * self.turns).flatten(1)


class Picks(nn.Module):
    """Uses its second input for some batches only; the others leave it without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        return (u if u[0, 0] > 0 else u + v) * self.weight


class Forked(Net):
    """Two layers side by side, below a cut, one of which gets no gradient from some batches."""

    def __init__(self) -> None:
        super().__init__()
        self.other, self.picks = nn.Linear(6, 8), Picks()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.picks(torch.tanh(self.a(x)), torch.tanh(self.other(x))))


class Masked(nn.Module):
    """Attention over its own features, with infinities in a constant."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        mask = torch.triu(torch.full((8, 8), -math.inf), 1)
        if where == "parameter":
            self.mask = nn.Parameter(mask, requires_grad=False)
        elif where == "attribute":
            self.mask = mask
        else:
            self.register_buffer("mask", mask, persistent=where == "buffer")

    def forward(self, h: Tensor) -> Tensor:
        scores = h.unsqueeze(2) * h.unsqueeze(1) + self.mask
        return (torch.softmax(scores, -1) @ h.unsqueeze(2)).squeeze(2)


class Teacher(nn.Module):
    """A frozen copy of a layer that follows it, as momentum encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(8, 8), nn.Linear(8, 8).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())

    def forward(self, h: Tensor) -> Tensor:
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                slow.mul_(0.5).add_(fast, alpha=0.5)
        return self.student(h) + self.teacher(h)


class Extremes(nn.Module):
    """Remembers the largest and the smallest of what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("high", torch.tensor(-math.inf))
        self.register_buffer("low", torch.tensor(math.inf), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        with torch.no_grad():
            self.high.copy_(torch.maximum(self.high, h.max()))
            self.low.copy_(torch.minimum(self.low, h.min()))
        return h / (self.high - self.low + 1).clone()


class Hooked(Net):
    def __init__(self) -> None:
        super().__init__()
        self.a.weight.register_hook(lambda gradient: gradient * torch.tensor([1.0, 0, 1, 0, 0.5, 1]))
        self.b.weight.register_post_accumulate_grad_hook(_clip)
        self.b.bias.register_hook(torch.zeros_like)


def _clip(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.clamp_(-0.01, 0.01)


def stateful() -> nn.Module:
    """Return a model whose forward is warmed up by a hook that counts, and whose gradient by one that remembers."""
    model, calls, last = Net(), [0], dict[str, Tensor]()

    def warm(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        calls[0] += 1
        return output * min(1.0, calls[0] / 4)

    def smooth(gradient: Tensor) -> Tensor:
        last["mean"] = gradient.clone() if not last else 0.9 * last["mean"] + 0.1 * gradient
        return last["mean"]

    model.a.register_forward_hook(warm)
    model.b.weight.register_hook(smooth)
    return model


class Fading:
    """A hook that counts its calls and makes outputs smaller with them."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        self.calls += 1
        return output / self.calls


class Block(nn.Linear):
    """A layer of the user's own."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.tanh(super().forward(h))


def faded() -> nn.Module:
    block = Block(8, 8)
    block.register_forward_hook(Fading())
    return Net(block)


def marked() -> nn.Module:
    model = Net()
    for p in model.parameters():
        p.no_decay = p.ndim == 1
    return model


def by_marks(parameters: list[nn.Parameter]) -> Optimizer:
    free = [p for p in parameters if getattr(p, "no_decay", False)]
    rest = [p for p in parameters if not getattr(p, "no_decay", False)]
    return SGD([{"params": free, "weight_decay": 0.0, "lr": 0.3}, {"params": rest, "weight_decay": 0.5}], lr=0.1)


class Noisy(nn.Module):
    """Adds noise of a generator that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = torch.Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        return x + torch.randn(x.shape, generator=self.draw)


class Annealed(nn.Module):
    """A loss that counts its calls and smooths labels less and less."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0.0))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return F.cross_entropy(outputs, targets, label_smoothing=float(0.5 / self.calls))


def annealed() -> Callable[[Tensor, Tensor], Tensor]:
    calls = [0]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls[0] += 1
        return F.cross_entropy(outputs, targets, label_smoothing=0.5 / calls[0])

    return loss


SGD_OF_ALL = partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1)


@dataclass(frozen=True)
class Case:
    """What is trained, made anew for each way."""

    model: Callable[[], nn.Module] = Net
    loss: Callable[[], Callable[..., Tensor]] = nn.CrossEntropyLoss
    optimizer: Callable[[list[nn.Parameter]], Optimizer] = SGD_OF_ALL
    dtype: torch.dtype = torch.float32
    cut: str = "b"
    leave_out: tuple[str, ...] = ()


CUT = ("1f1b", "pipedream", "dsp")
"""Ways that a model with a branch on values in its outermost forward cannot go."""

CASES: dict[str, Case] = {
    "unused layers, SGD": Case(Spare, leave_out=CUT),
    "unused layers, AdamW": Case(Spare, optimizer=partial(AdamW, lr=0.01), leave_out=CUT),
    "a branch of some batches, SGD": Case(lambda: Net(Sometimes())),
    "a branch of some batches, Adam": Case(lambda: Net(Sometimes()), optimizer=partial(Adam, lr=0.01)),
    "a value that some batches use, SGD": Case(Forked, cut="picks"),
    "a value that some batches use, AdamW": Case(Forked, optimizer=partial(AdamW, lr=0.01), cut="picks"),
    "complex table": Case(lambda: Net(Turned())),
    "infinite buffer": Case(lambda: Net(Masked("buffer"))),
    "infinite buffer that is not saved": Case(lambda: Net(Masked("unsaved"))),
    "infinite frozen parameter": Case(lambda: Net(Masked("parameter"))),
    "infinite attribute": Case(lambda: Net(Masked("attribute"))),
    "frozen layer": Case(lambda: Net(nn.Linear(8, 8).requires_grad_(False))),
    "momentum encoder": Case(lambda: Net(Teacher())),
    "extremes": Case(lambda: Net(Extremes())),
    "hooks on gradients": Case(Hooked),
    "hooks with a state in their closures": Case(stateful),
    "a hook that counts": Case(faded),
    "a generator of its own": Case(lambda: Net(Noisy())),
    "marked parameters": Case(marked, optimizer=by_marks),
    "double": Case(lambda: Net().double(), dtype=torch.float64),
    "bfloat16": Case(lambda: Net().bfloat16(), dtype=torch.bfloat16),
    "a loss with a state": Case(loss=Annealed),
    "a loss with a state in its closure": Case(loss=annealed),
}


def data_of(dtype: torch.dtype) -> TensorDataset:
    draw = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(40, 6, generator=draw).to(dtype), torch.randint(0, 3, (40,), generator=draw))


def build(case: Case) -> nn.Module:
    torch.manual_seed(1)
    return case.model()


def plain(case: Case) -> tuple[nn.Module, float]:
    """Train as any torch user would; return the model and the last loss."""
    model, loss = build(case).train(), case.loss()
    batches = Batches(data_of(case.dtype), groups=1, batch_size=BATCH, seed=SEED)
    optimizer = case.optimizer([p for p in model.parameters() if p.requires_grad])
    value = torch.zeros(())
    for n in range(UPDATES):
        optimizer.zero_grad()
        value = loss(model(*batches.inputs(0, n)), batches.targets(0, n))
        value.backward()
        optimizer.step()
    return model, float(value.detach())


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, also those that are not saved."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def train(case: Case, way: str, **settings: Any) -> stalegrid.Result:
    chosen = {**WAYS[way], **settings}
    cuts = {"cuts": [case.cut]} if chosen.get("stages") == 2 else {}
    common = {"batch_size": BATCH, "updates": UPDATES, "seed": SEED, "log_every": 1, "quiet": True}
    return cases.train(
        build(case),
        data_of(case.dtype),
        loss=case.loss(),
        optimizer=case.optimizer,
        **{"engine": "simulator", **common, **cuts, **chosen},
    )


@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name, case in CASES.items() for way in WAYS if way not in case.leave_out]
)
def test_without_staleness_it_is_the_plain_loop(name: str, way: str) -> None:
    case = CASES[name]
    model, loss = plain(case)
    result = train(case, way)
    for tensor, found in zip(tensors_of(model).items(), tensors_of(result.model).items(), strict=True):
        assert tensor[0] == found[0]
        assert tensor[1].dtype == found[1].dtype
        assert torch.equal(tensor[1], found[1]), tensor[0]
    assert result.summary["train_loss"] == loss


@pytest.mark.parametrize("mixing", ["combine-while-adapt", "adapt-then-combine"])
@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("name", ["extremes", "momentum encoder", *(name for name in CASES if "infinite" in name)])
def test_groups_that_mix_stay_finite_and_keep_what_is_constant(name: str, mixing: str, stages: int, lag: int) -> None:
    case = CASES[name]
    if name == "momentum encoder" and stages > 1:
        with pytest.raises(stalegrid.ConfigError, match=r"late backward .* fails \(stage: 0\): .* modified in place"):
            train(case, "sgd", method="pham-ahn", groups=3, stages=stages)
        return
    result = train(case, "sgd", method="pham-ahn", groups=3, stages=stages, mixing=MixingSettings(kind=mixing, lag=lag))
    first, last = build(case), result.model
    for key, p in last.named_parameters():
        if p.requires_grad or "teacher" in key:
            assert p.isfinite().all(), key
            assert not torch.equal(p, first.get_parameter(key)), key
        else:
            assert torch.equal(p, first.get_parameter(key)), key
    if name == "extremes":
        assert -1 < float(last.middle.high) < 1


def test_all_reduce_keeps_replicas_together_where_some_have_no_gradient() -> None:
    for name in ("unused layers, SGD", "unused layers, AdamW", "a branch of some batches, Adam"):
        result = train(CASES[name], "sgd", method="data-parallel", groups=3)
        assert result.summary["consensus_distance"] == 0.0


class Voted(nn.Module):
    """Counts, in whole numbers, how often each feature was the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("votes", torch.zeros(8, dtype=torch.int64))

    def forward(self, h: Tensor) -> Tensor:
        self.votes += torch.bincount(h.argmax(1), minlength=8)
        return h


def test_whole_numbers_that_groups_do_not_share_are_told() -> None:
    case = Case(lambda: Net(Voted()))
    with pytest.warns(UserWarning, match=r"unlike values .* \(buffer: middle.votes\)") as told:
        result = train(case, "sgd", method="pham-ahn", groups=2, stages=1)
    assert len(told) == 1
    assert int(result.model.middle.votes.sum()) == UPDATES * BATCH


class Table(nn.Module):
    """Adds constants whose sum of three rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(0.1, 0.9, 8))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.table


@pytest.mark.parametrize(
    "settings", [{"method": "softsync", "learners": 3, "softsync": 1}, {"method": "pham-ahn", "groups": 3, "stages": 1}]
)
def test_what_all_replicas_have_alike_is_not_rounded(settings: dict[str, Any]) -> None:
    case = Case(lambda: Net(Table()))
    table = torch.linspace(0.1, 0.9, 8)
    assert not torch.equal((table + table + table) / 3, table)
    assert torch.equal(train(case, "sgd", **settings).model.middle.table, table)


class LateTeacher(nn.Module):
    """A frozen layer that begins to follow another one after some batches."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(8, 8), nn.Linear(8, 8).requires_grad_(False)
        self.calls = 0

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 4:
            with torch.no_grad():
                self.teacher.weight.lerp_(self.student.weight, 0.5)
        return self.student(h) + self.teacher(h)


@pytest.mark.parametrize("way", ["sgd", "hardsync", "softsync"])
def test_a_frozen_parameter_that_begins_to_move_ends_the_run(way: str) -> None:
    with pytest.raises(stalegrid.TrainingError, match=r"left alone at the start \(name: middle\.teacher\.weight\)"):
        train(Case(lambda: Net(LateTeacher())), way)


class Bounded(nn.Module):
    """Words whose vectors are kept short by the forward itself."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(5, 8, max_norm=0.5), nn.Linear(8, 8)

    def forward(self, h: Tensor) -> Tensor:
        return self.out(h + self.words(torch.arange(len(h)) % 5))


def test_what_a_forward_does_to_its_parameters_stays_or_is_refused() -> None:
    case = Case(lambda: Net(Bounded()), optimizer=partial(SGD, lr=0.5))
    model, _ = plain(case)
    for way in ("sgd", "1f1b", "pipedream"):
        assert torch.equal(train(case, way).model.middle.words.weight, model.middle.words.weight)
    for way in ({"method": "hardsync", "learners": 1}, {"method": "spectrain", "stages": 2, "cuts": ["b"]}):
        moving = Case(case.model, optimizer=SGD_OF_ALL)
        with pytest.raises(
            stalegrid.ConfigError, match=r"changes a trained parameter in place .*middle\.words\.weight"
        ):
            train(moving, "sgd", **way)


class Counted(nn.Module):
    """Counts its batches in a floating buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        self.batches += 1
        return h


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_what_groups_count_alike_is_not_held_back_by_a_lag(lag: int) -> None:
    result = train(
        Case(lambda: Net(Counted())), "sgd", method="pham-ahn", groups=2, stages=1, mixing=MixingSettings(lag=lag)
    )
    assert float(result.model.middle.batches) == UPDATES


class Looking(nn.Linear):
    """Adds the size of the gradient that its weight has, which a plain loop has forgotten by then."""

    def forward(self, h: Tensor) -> Tensor:
        seen = 0.0 if self.weight.grad is None else float(self.weight.grad.abs().sum())
        return super().forward(h) + seen


@pytest.mark.parametrize("way", WAYS)
def test_a_forward_finds_no_gradient_of_the_batch_before(way: str) -> None:
    case = Case(lambda: Net(Looking(8, 8)))
    assert train(case, way).summary["train_loss"] == plain(case)[1]


def changing(kind: str) -> Callable[[Tensor, Tensor], Any]:
    calls = [0]

    def loss(outputs: Tensor, targets: Tensor) -> Any:
        calls[0] += 1
        made = F.cross_entropy(outputs, targets)
        if calls[0] < 4:
            return made
        return {"number": float(made.detach()), "detached": made.detach(), "row": made.view(1)}[kind]

    return loss


@pytest.mark.parametrize("way", ["sgd", "pipedream", "hardsync"])
@pytest.mark.parametrize("kind", ["number", "detached", "row"])
def test_a_loss_that_later_is_no_loss_ends_the_run_with_its_coordinates(kind: str, way: str) -> None:
    with pytest.raises(stalegrid.TrainingError, match=r"the loss (must be one number|has no gradient).*batch: [34]\)"):
        train(Case(loss=lambda: changing(kind)), way)


class Renewing(nn.Module):
    """Puts another tensor into the place of a buffer, or takes it away, after some batches."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(8))
        self.other, self.calls = other, 0

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            self.table = self.other
        return h if self.table is None else h + self.table


@pytest.mark.parametrize("way", ["sgd", "hardsync"])
@pytest.mark.parametrize("other", [torch.ones(8), None])
def test_a_buffer_that_is_replaced_or_taken_away_ends_the_run(other: Any, way: str) -> None:
    with pytest.raises(stalegrid.TrainingError, match=r"(replaced|lost) a tensor.*\(name: middle\.table\)"):
        train(Case(lambda: Net(Renewing(other))), way)


def test_a_schedule_that_ends_before_the_run_is_refused() -> None:
    case = Case()
    with pytest.raises(stalegrid.ConfigError, match=r"\(total_steps: 3, updates: 6\)"):
        cases.train(
            build(case),
            data_of(case.dtype),
            loss=case.loss(),
            optimizer=case.optimizer,
            scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=3),
            updates=UPDATES,
            batch_size=BATCH,
            engine="simulator",
            quiet=True,
        )


def test_a_sum_over_samples_is_what_it_is_in_a_plain_loop_or_refused() -> None:
    case = Case(loss=partial(nn.CrossEntropyLoss, reduction="sum"), optimizer=partial(SGD, lr=0.01))
    for way in ("sgd", "1f1b", "hardsync"):
        assert train(case, way).summary["train_loss"] == plain(case)[1]
    for more in (
        {"method": "gpipe", "micro_batches": 2},
        {"method": "data-parallel", "groups": 2},
        {"method": "gpipe", "groups": 2, "micro_batches": 4, "reduction": "sum"},
    ):
        with pytest.raises(stalegrid.ConfigError, match=r"reduction: sum.*\(batches: 2\)"):
            train(case, "sgd", **more)
    # A sum over samples is also one over the micro-batches that add theirs up: the gradients of a whole batch.
    for more in ({"method": "gpipe", "micro_batches": 4}, {"method": "paci", "staleness": [0, 0], "micro_batches": 2}):
        found = train(case, "1f1b", **more, reduction="sum").model
        for p, own in zip(found.parameters(), plain(case)[0].parameters(), strict=True):
            # Not bit for bit: a batch sums over its samples in one pass, micro-batches one after the other.
            torch.testing.assert_close(p, own, rtol=1e-4, atol=1e-6)
