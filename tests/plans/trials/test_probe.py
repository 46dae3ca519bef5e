"""What a trial of one update finds out, and what it refuses."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stalegrid.errors import ConfigError
from stalegrid.plans.trials import Probed, probe
from stalegrid.programs.grid import Grid
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, stale
from stalegrid.stages.corrections.named import Correction, makers
from stalegrid.stages.views.named import VIEWS
from tests.cases import Kept, build, make_task
from tests.sites import noise

FLOAT = 4


def layers(*middle: nn.Module) -> list[nn.Module]:
    """Return two stages, with some modules at the end of the first."""
    return [build(lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), *middle)), build(lambda: nn.Linear(5, 3))]


def trial(
    stages: Sequence[nn.Module],
    view: str = "stashed",
    schedule: Schedule | None = None,
    corrections: Sequence[str] = (),
    **task: Any,
) -> list[Probed]:
    made = VIEWS[view]
    chosen = schedule or Schedule((3, 1), 2, delay=1) if made.delay else schedule or stale([2, 0])
    program = Program(Grid(1, 2), chosen, 8, recompute=made.recomputes)
    targets = torch.tensor([0, 1, 2, 1])
    return probe(make_task(**task), program, made, makers(corrections), stages, (noise(4, 6),), targets)


class Recounting(nn.Module):
    """Each forward gives another output: it reads a buffer that it also changes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(5, 5)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "buffer":
            self.scale.mul_(1.5)
            return self.linear(x) * self.scale.clone()
        if self.kind == "counter":
            self.count.add_(1)
            return self.linear(x) * self.count.clone()
        if self.kind == "attribute":
            self.calls += 1
            return self.linear(x) * self.calls
        return self.linear(x) + torch.randn(5, generator=GENERATOR)


GENERATOR = torch.Generator()


@pytest.mark.parametrize("kind", ["buffer", "counter", "attribute", "random numbers"])
def test_a_forward_that_does_not_repeat_itself_cannot_be_made_twice(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"a second forward .* gives other outputs \(stage: 0\).*; take view stashed"):
        trial(layers(Recounting(kind)), "recomputed")
    trial(layers(Recounting(kind)), "stashed", stale([0, 0]))


@pytest.mark.parametrize(
    "module", [nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(5))]
)
def test_dropout_and_running_statistics_repeat_themselves(module: nn.Module) -> None:
    trial(layers(module), "recomputed")


class Counting(nn.Module):
    """Counts its batches, which shows after many of them only."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.n = 0
        self.seen: list[int] = []
        self.total = torch.zeros(())
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "n":
            self.n += 1
        elif self.kind == "seen":
            self.seen.append(len(x))
        elif self.kind == "total":
            self.total += 1
        else:
            self.count += 1
        return x * 10 if max(self.n, len(self.seen), int(self.total), int(self.count)) > 20 else x


@pytest.mark.parametrize("kind", ["n", "seen", "total"])
def test_an_attribute_that_a_forward_changes_is_refused_where_there_are_two(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"once more \(stage: 0, attribute: 2.{kind}\); keep it in a buffer"):
        trial(layers(Counting(kind)), "recomputed")
    trial(layers(Counting(kind)), "stashed")
    trial(layers(Counting("count")), "recomputed")


LATE_GRAPHS = ["stashed", "current", "predicted", "predicted-twice", "corrected", "double-buffered"]


@pytest.mark.parametrize("view", LATE_GRAPHS)
def test_a_late_backward_that_would_not_see_the_weights_is_refused_by_every_view_that_keeps_graphs(view: str) -> None:
    with pytest.raises(ConfigError, match=r"would not see the weights of its forward \(stage: 0\)"):
        trial(layers(Kept(5)), view)


def test_a_graph_that_is_made_late_sees_the_weights_anyway() -> None:
    trial(layers(Kept(5)), "recomputed")


def test_a_stage_that_is_not_stale_is_tried_where_its_view_predicts_it_all_the_same() -> None:
    first, last = layers()
    stages = [first, nn.Sequential(nn.Linear(5, 5), Kept(5), last)]
    with pytest.raises(ConfigError, match=r"would not see the weights of its forward \(stage: 1\)"):
        trial(stages, "predicted-twice", stale([4, 0]))
    for view in ("stashed", "predicted"):
        trial(stages, view, stale([4, 0]))
    trial(stages, "predicted-twice", stale([0, 0]))


@pytest.mark.parametrize("view", LATE_GRAPHS)
def test_what_a_late_backward_sends_down_is_compared_too(view: str) -> None:
    first, last = layers()
    schedule = Schedule((3, 3), 2, delay=1) if view == "double-buffered" else stale([2, 1])
    with pytest.raises(ConfigError, match=r"would not see the weights of its forward \(stage: 1\)"):
        trial([first, nn.Sequential(Kept(5), last)], view, schedule)


class Checkpointed(nn.Module):
    """Activation checkpointing of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.linear, x, use_reentrant=False)


@pytest.mark.parametrize("view", LATE_GRAPHS)
def test_checkpointing_in_a_late_stage_is_an_error_of_configuration(view: str) -> None:
    with pytest.raises(ConfigError, match="checkpoint"):
        trial(layers(Checkpointed()), view)


def test_checkpointing_is_welcome_where_graphs_are_made_late_or_nothing_is_late() -> None:
    trial(layers(Checkpointed()), "recomputed")
    trial(layers(Checkpointed()), "stashed", stale([0, 0]))


def test_bytes_of_a_graph_and_of_inputs() -> None:
    found = trial(layers())
    inputs, hidden, scores = 4 * 6 * FLOAT, 4 * 5 * FLOAT, 4 * 3 * FLOAT
    assert [p.inputs for p in found] == [inputs, hidden]
    # A linear layer keeps its input and tanh its output; the loss keeps log-probabilities, targets and its own value.
    assert found[0].graph == inputs + hidden
    assert found[1].graph - hidden - scores - 4 * 8 in range(17), "besides, single numbers"


def test_a_graph_that_is_made_late_is_as_large() -> None:
    assert [(p.graph, p.inputs) for p in trial(layers(nn.Dropout(0.5)), "recomputed")] == [
        (p.graph, p.inputs) for p in trial(layers(nn.Dropout(0.5)))
    ]


@pytest.mark.parametrize(("texts", "reads"), [([], False), (["clip"], False), (["clip", "dc-asgd"], True)])
def test_whether_a_correction_reads_the_weights_of_the_forward(texts: list[str], reads: bool) -> None:
    assert [p.reads_forwarded for p in trial(layers(), corrections=texts)] == [reads, reads]


@pytest.mark.parametrize("text", ["dc-asgd", "dc-asgd-adaptive", "gap-aware"])
def test_corrections_that_read_them_take_one_micro_batch(text: str) -> None:
    with pytest.raises(ConfigError, match=r"\(micro_batches: 2\); take micro_batches 1"):
        trial(layers(), schedule=stale([2, 0], 2), corrections=[text])


@pytest.mark.parametrize("view", ["predicted", "predicted-twice"])
def test_a_view_is_built_for_every_stage(view: str) -> None:
    for schedule in (stale([2, 0]), stale([0, 0])):
        with pytest.raises(ConfigError, match="optimizer: RMSprop"):
            trial(layers(), view, schedule, optimizer=torch.optim.RMSprop, scheduler=None)


@pytest.mark.parametrize("view", VIEWS)
def test_a_trial_leaves_the_stages_the_generator_and_the_task_alone(view: str) -> None:
    stages = layers(nn.BatchNorm1d(5), nn.Dropout(0.5))
    before = [t.clone() for stage in stages for t in stage.state_dict().values()]
    state = torch.random.get_rng_state()
    probed = trial(stages, view, corrections=["clip"])
    after = [t for stage in stages for t in stage.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None for stage in stages for p in stage.parameters())
    assert [type(p.optimizer) for p in probed] == [torch.optim.SGD] * 2


@pytest.mark.parametrize("where", ["correct", "rate", "stepped"])
def test_a_correction_that_fails_is_an_error_of_configuration(where: str) -> None:
    class Failing(Correction):
        def __getattribute__(self, name: str) -> Any:
            if name == where:
                raise ZeroDivisionError("ouch")
            return super().__getattribute__(name)

    program = Program(Grid(1, 2), stale([2, 0]), 8)
    with pytest.raises(ConfigError, match="cannot be built or stepped: ouch"):
        probe(make_task(), program, VIEWS["stashed"], [Failing], layers(), (noise(4, 6),), torch.tensor([0, 1, 2, 1]))


@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.Sequential(nn.ReLU(inplace=True), nn.Flatten())])
def test_an_input_that_is_changed_in_place_is_an_error_of_configuration(first: nn.Module) -> None:
    stages = layers()
    first = nn.Sequential(first, stages[0])
    with pytest.raises(ConfigError, match=r"\(stage: 0\): the model changes its input in place, .*; copy it first"):
        trial([first, stages[1]], "recomputed")
    trial([first, stages[1]], "stashed", stale([0, 0]))


class Read(nn.Module):
    """Reads a tensor that belongs to nobody."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.held = [tensor]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.held[0]


class Proxies(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.ones(3, 3))

    def forward(self, y: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(-torch.cdist(y, self.centres), targets)


def test_a_forward_that_reads_what_nobody_trains_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"for what nobody trains \(it is: a tensor of shape \(5,\)\)"):
        trial(layers(Read(torch.ones(5, requires_grad=True))))
    trial(layers(Read(torch.ones(5))))


def test_a_loss_with_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(it is: centres of the loss\); make it a parameter of the model"):
        trial(layers(), loss=Proxies())
    trial(layers(), loss=Proxies().requires_grad_(False))


def test_a_penalty_on_the_models_own_parameters_is_refused() -> None:
    model = build(lambda: nn.Linear(6, 3))

    def loss(y: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(y, targets) + sum(p.abs().sum() for p in model.parameters())

    with pytest.raises(ConfigError, match=r"\(it is: the model's own (weight|bias)\)"):
        trial(layers(), model=model, loss=loss)


def share_of_wrong_answers(y: Tensor, targets: Tensor) -> Tensor:
    return (y.argmax(1) != targets).float().mean()


def number_of_wrong_answers(y: Tensor, targets: Tensor) -> Tensor:
    return (y.argmax(1) != targets).sum()


@pytest.mark.parametrize(
    ("loss", "dtype"), [(share_of_wrong_answers, torch.float32), (number_of_wrong_answers, torch.int64)]
)
def test_a_loss_without_a_gradient_is_refused(loss: Any, dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=rf"the loss has no gradient \(type: {dtype}\)"):
        trial(layers(), loss=loss)


class Detached(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach() + x.sum() * 0


def test_a_stage_that_nobody_would_train_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no parameter of a stage has a gradient \(stage: 1\)"):
        trial([layers()[0], build(lambda: Detached(5, 3))])


class Following(nn.Module):
    """A frozen layer, or a buffer of another type, that follows a trained one."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.fast, self.slow = nn.Linear(5, 5), nn.Linear(5, 5).to(dtype).requires_grad_(False)
        self.still = nn.Linear(5, 5).requires_grad_(False)
        self.slow.load_state_dict(self.fast.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        for slow, fast in zip(self.slow.parameters(), self.fast.parameters(), strict=True):
            slow.data.mul_(0.5).add_(fast.data, alpha=0.5)  # behind the back of counters of changes
        return self.still(self.fast(x)) + self.slow.bias.to(x.dtype).clone()


def test_a_frozen_parameter_that_the_forward_changes_travels() -> None:
    found = trial(layers(Following(torch.float32)), schedule=stale([0, 0]))[0].weights
    assert [e.name for e in found.entries if e.offset >= found.trained] == ["2.slow.weight", "2.slow.bias"]
    assert set(found.still()) == {"2.still.weight", "2.still.bias"}


def test_a_changing_tensor_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(name: 2.slow.weight, type: torch.float64, parameters: torch.float32\)"):
        trial(layers(Following(torch.float64)), schedule=stale([0, 0]))


def test_a_sparse_gradient_is_found() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 5, sparse=True)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.table(torch.tensor([1, 2, 3, 4, 5]))

    plain = {"optimizer": torch.optim.SGD, "scheduler": None}
    assert [p.sparse for p in trial([layers(Words())[0], layers()[1]], **plain)] == ["2.table.weight", None]


def test_a_trial_leaves_the_state_of_functions_alone() -> None:
    calls = {"loss": 0, "optimizer": 0, "scheduler": 0, "correction": 0}

    def loss(y: Tensor, targets: Tensor) -> Tensor:
        calls["loss"] += 1
        return nn.functional.cross_entropy(y, targets)

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        calls["optimizer"] += 1
        return torch.optim.SGD(parameters, lr=0.1)

    def scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        calls["scheduler"] += 1
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def correction(site: Any) -> Correction:
        calls["correction"] += 1
        return Correction(site)

    task = make_task(loss=loss, optimizer=optimizer, scheduler=scheduler)
    program = Program(Grid(1, 2), stale([2, 0]), 8)
    probe(task, program, VIEWS["stashed"], [correction], layers(), (noise(4, 6),), torch.tensor([0, 1, 2, 1]))
    assert set(calls.values()) == {0}
