"""The parts that docs/extending.md shows, run as they stand, on both engines, beside a plain loop of torch's own."""

import contextlib
import copy
import functools
import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from torch import Tensor, nn

import stalegrid
from stalegrid.config import Settings
from stalegrid.plans.material import cast_model, make_batches
from stalegrid.plans.plan import Plan
from stalegrid.plans.task import Task
from stalegrid.recipes.settings import RunConfig
from stalegrid.studies.loops import plain_loop
from stalegrid.studies.verifying import Outcome, on, run_engine
from tests.cases import CPU, make_plan, record_simulator

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
UPDATES = 12

EXAMPLES = ("Fade", "Averaged", "Clipped", "graph", "matrix", "slack")
"""What the calls of the page show, in their order."""


def blocks(kind: str = "python") -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def run_page() -> str:
    """Run the page from its first line to its last, and return what it prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        exec(compile("\n".join(blocks()), str(PAGE), "exec"), {"__name__": "a script"})
    return text.getvalue()


@functools.cache
def calls() -> dict[str, tuple[Task, dict[str, Any]]]:
    """Run the page without training; return what each of its calls asks for."""
    found: list[tuple[Task, dict[str, Any]]] = []

    def train(model: nn.Module, data: Any, *, loss: Any, optimizer: Any, **options: Any) -> stalegrid.Result:
        found.append((Task(model, data, loss, optimizer), options))
        return stalegrid.Result(model, {"method": "", "train_loss": 0.0}, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stalegrid, "train", train)
        run_page()
    return dict(zip(EXAMPLES, found, strict=True))


def asked(example: str) -> tuple[Task, Settings]:
    """Return what a call of the page asks for, for fewer updates, all of which are reported."""
    task, options = calls()[example]
    options = {name: value for name, value in options.items() if name not in ("epochs", "quiet")}
    output = stalegrid.OutputSettings(log_every=1, evaluate_every=0.0)
    return task, Settings.of({**options, "updates": UPDATES, "output": output})


def run(task: Task, settings: Settings, kind: Literal["simulator", "processes"]) -> tuple[Plan, Outcome]:
    """Run on an engine and keep every unit's numbers."""
    plan = make_plan(task, on(settings, kind))
    settings = on(plan.settled(settings), kind)
    return plan, run_engine(task, settings, plan)


def plain(
    stages: list[list[nn.Module]],
    m: Sequence[int],
    batch: Callable[[int, int], tuple[Tensor, Tensor]],
    *,
    fade: float = 0.0,
    average: float | None = None,
    pull: Callable[[Tensor], Tensor] | None = None,
) -> tuple[list[list[nn.Module]], list[list[float]]]:
    """Train groups of stages late, in torch alone.

    Args:
        stages: [s][k], of equal weights in all groups; trained.
        m: staleness of each stage.
        batch: (s, b) -> inputs and targets.
        fade: gradients are scaled by exp(-fade x staleness).
        average: share of the newest weights in the moving average at which everything is computed; None for the weights
            that a batch was forwarded at.
        pull: gap to another group -> what is added for it.

    Returns:
        The stages and the losses of every update and group.
    """
    groups, depth = len(stages), len(m)
    step = [[torch.optim.SGD(f.parameters(), lr=0.05, momentum=0.9) for f in group] for group in stages]
    mean = [[[p.detach().clone() for p in f.parameters()] for f in group] for group in stages]
    flying: dict[tuple[int, int, int], tuple[nn.Module, Tensor, Tensor]] = {}
    losses: list[list[float]] = [[0.0] * groups for _ in range(UPDATES)]

    def averaged(f: nn.Module, s: int, k: int) -> None:
        if average is not None:
            for p, value in zip(f.parameters(), mean[s][k], strict=True):
                p.data.copy_(value)

    for n in range(UPDATES):
        for k in range(depth):
            for s in range(groups):
                for b in range(m[k] + n if n else 0, min(m[k] + n, UPDATES - 1) + 1):
                    f = copy.deepcopy(stages[s][k])
                    averaged(f, s, k)
                    x = flying[s, k - 1, b][2].detach().requires_grad_() if k else batch(s, b)[0]
                    y = f(x)
                    if k == depth - 1:
                        y = nn.functional.cross_entropy(y, batch(s, b)[1])
                        losses[b][s] = y.item()
                    flying[s, k, b] = f, x, y
        for s in range(groups):
            below: Tensor | None = None
            for k in reversed(range(depth)):
                f, x, y = flying.pop((s, k, n))
                averaged(f, s, k)
                y.backward(below)
                below = x.grad
                for p, own, a in zip(stages[s][k].parameters(), f.parameters(), mean[s][k], strict=True):
                    assert own.grad is not None
                    p.grad = own.grad * math.exp(-fade * min(n, m[k])) if fade else own.grad
                    if average is not None:
                        a.lerp_(p.detach(), average)
                step[s][k].step()
                stages[s][k].zero_grad()
        if pull is not None:
            now = copy.deepcopy(stages)
            for s in range(groups):
                for k in range(depth):
                    for i, p in enumerate(stages[s][k].parameters()):
                        theirs = [list(now[r][k].parameters())[i] for r in range(groups)]
                        delta = torch.zeros_like(p)
                        for r in range(groups):
                            if r != s:
                                delta += pull(theirs[r].detach() - theirs[s].detach())
                        p.data += delta
    return stages, losses


def beside(task: Task, plan: Plan, **rule: Any) -> tuple[dict[tuple[int, str], Tensor], list[list[float]]]:
    """Return the parameters and losses of the plain loop on the same data, the same weights and the same cuts."""
    samples = make_batches(task, plan.training, plan.grid.groups, 1)

    def cut() -> list[nn.Module]:
        layers = dict(cast_model(task, plan.training).named_children())
        places = [0, *map(int, plan.partition.names), len(layers)]
        named = list(layers.items())
        parts = [dict(named[a:b]) for a, b in itertools.pairwise(places)]
        return [Named(part) for part in parts]

    stages, losses = plain(
        [cut() for _ in range(plan.grid.groups)],
        [window - 1 for window in plan.schedule.windows],
        lambda s, b: (samples.inputs(s, b)[0], samples.targets(s, b)),
        **rule,
    )
    parameters = {
        (s, name): p.detach() for s, group in enumerate(stages) for f in group for name, p in f.named_parameters()
    }
    return parameters, losses


class Named(nn.Module):
    """Layers one after another, by the names that they have in the whole."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


def clipped(gap: Tensor) -> Tensor:
    return gap.clamp(-0.01, 0.01) * 0.5


RULES: dict[str, dict[str, Any]] = {
    "Fade": {"fade": 0.2},
    "Averaged": {"average": 0.5},
    "Clipped": {"pull": clipped},
    "slack": {"fade": 0.2, "average": 0.5, "pull": clipped},
}


@pytest.mark.parametrize("kind", ["simulator", "processes"])
@pytest.mark.parametrize("example", RULES)
def test_an_example_is_what_a_plain_loop_computes(example: str, kind: Literal["simulator", "processes"]) -> None:
    task, settings = asked(example)
    plan, found = run(task, settings, kind)
    assert len(plan.grid) == {"Fade": 3, "Averaged": 3, "Clipped": 4, "slack": 6}[example]
    parameters, losses = beside(task, plan, **RULES[example])
    assert found.parameters.keys() == parameters.keys()
    for key, value in parameters.items():
        torch.testing.assert_close(found.parameters[key], value, rtol=0, atol=0)
    assert found.losses == losses


@pytest.mark.parametrize("example", RULES)
def test_an_example_changes_what_is_trained(example: str) -> None:
    task, settings = asked(example)
    plan, found = run(task, settings, "simulator")
    for left in RULES[example]:
        rule = {name: value for name, value in RULES[example].items() if name != left}
        assert found.losses != beside(task, plan, **rule)[1], left


def test_the_page_runs_and_every_example_learns() -> None:
    lines = [line.split() for line in run_page().splitlines()]
    assert [name for name, _ in lines] == ["pipedream", "pipedream", "pipedream", "pham-ahn", "pham-ahn", "slack"]
    assert all(float(loss) < 0.6 for _, loss in lines), lines


def test_every_example_is_about_twenty_lines() -> None:
    for block in blocks():
        assert len([line for line in block.splitlines() if line.strip()]) <= 22


def test_no_loop_of_the_package_claims_to_compute_an_example() -> None:
    for example in RULES:
        task, settings = asked(example)
        assert plain_loop(task, make_plan(task, settings), CPU) is None


def test_a_graph_and_a_matrix_are_who_mixes_with_whom() -> None:
    star = make_plan(*asked("graph")).turns.matrix.weights(0)
    assert star[0].tolist() == [0.25] * 4
    assert star[1].tolist() == [0.25, 0.75, 0, 0]
    assert make_plan(*asked("matrix")).turns.matrix.weights(0).tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_the_file_of_options_on_the_page_can_be_read() -> None:
    (text,) = blocks("yaml")
    config = RunConfig.of(yaml.safe_load(text))
    assert config.method.view == "mine:Averaged"
    assert config.method.corrections == ["mine:Fade", "clip=1.0"]
    assert config.mixing.kind == "mine:Clipped"


def test_what_the_view_of_the_page_says_that_it_keeps_is_what_it_keeps() -> None:
    task, settings = asked("Averaged")
    sink = record_simulator(task, settings)
    for k in range(3):
        most = max(record["staleness"][f"(0,{k})"]["held"] for record in sink.records)
        assert most == pytest.approx(sink.plan.held[k], rel=0.02)
        assert most <= sink.plan.held[k]
