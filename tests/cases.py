"""A small task that has everything awkward, and one way to run it through any engine and through the references."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid import seeds
from stalegrid.agents.build import build_agents
from stalegrid.config import SHORT, Settings
from stalegrid.engines.simulator import simulate
from stalegrid.plans import make
from stalegrid.plans.material import cast_model
from stalegrid.plans.plan import Plan
from stalegrid.plans.served import ServedPlan
from stalegrid.plans.task import Task
from stalegrid.programs.grid import Unit
from stalegrid.runs import Result, execute
from stalegrid.studies import verifying
from stalegrid.studies.loops import plain_loop
from stalegrid.studies.whole import unwrapped
from stalegrid.timing.columns import DeviceTable
from stalegrid.timing.costs import CostTable
from stalegrid.written.groups import Group, groups_of, hints_of

torch.set_num_threads(1)

UPDATES = 8
CPU = torch.device("cpu")
CUTS: dict[int, list[str]] = {1: [], 2: ["norm2"], 3: ["conv2", "dropout2"], 4: ["dropout1", "norm2", "fc1"]}
"""Where :class:`Net` is cut, by K; the residual crosses every cut."""


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    name: partial(torch.optim.NAdam, lr=0.01, betas=(0.99, 0.999), decoupled_weight_decay=True)
    for name in ("async-nesterov", "asyncmesh")
}
"""What a method asks for instead of momentum SGD."""


class Net(nn.Module):
    """Convolution, batch-norm, dropout and a residual.

    Args:
        plain: leave out batch-norm and dropout, so that a sample's loss depends on nothing but the sample.
    """

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm1 = nn.Identity() if plain else nn.BatchNorm2d(4)
        self.dropout1 = nn.Identity() if plain else nn.Dropout(0.2)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.norm2 = nn.Identity() if plain else nn.BatchNorm2d(4)
        self.dropout2 = nn.Identity() if plain else nn.Dropout(0.3)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(36, 7)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout1(self.relu(self.norm1(self.conv1(x))))
        h = h + self.dropout2(self.norm2(self.conv2(h)))
        h = self.pool(self.relu(h)).flatten(1)
        return self.fc2(self.relu(self.fc1(h)))


OTHER_OPTIMIZERS = (
    partial(torch.optim.Adam, lr=0.01, weight_decay=0.01),
    partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
    partial(torch.optim.RMSprop, lr=0.01, momentum=0.5),
)
"""Some that keep more, or something else, than plain momentum SGD."""


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.w = w
        ctx.save_for_backward(x)
        return x * w

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        (x,) = ctx.saved_tensors
        return g * ctx.w, (g * x).sum(0)


class Kept(nn.Module):
    """A custom function that keeps its parameter where no hook sees it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self.w)  # type: ignore[no-any-return]


def images(samples: int = 50) -> TensorDataset:
    """Noise with a class-dependent mean, (samples, 2, 6, 6)."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (samples,), generator=draw)
    x = torch.randn(samples, 2, 6, 6, generator=draw, dtype=torch.float64)
    return TensorDataset((x + labels.view(-1, 1, 1, 1) / 2).float(), labels)


def build(model: Callable[[], nn.Module]) -> nn.Module:
    """Build a model with the same initial weights every time."""
    with seeds.drawing(CPU, 0, "test model"):
        return model()


def make_task(**changes: Any) -> Task:
    """Return the small task, momentum SGD with weight decay under a one-cycle schedule, with some changes."""
    defaults: dict[str, Any] = {
        "model": build(Net),
        "data": images(),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
        "scheduler": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=UPDATES),
    }
    return Task(**(defaults | changes))


def make_settings(groups: int = 1, stages: int = 1, **changes: Any) -> Settings:
    """Return settings that report every update and cut :class:`Net` at fixed places, with some changes."""
    defaults: dict[str, Any] = {
        "groups": groups,
        "stages": stages,
        "cuts": CUTS.get(stages),
        "batch_size": 4,
        "updates": UPDATES,
        "log_every": 1,
        "evaluate_every": 0.0,
        "seed": 3,
    }
    return flat(Settings, **(defaults | changes))


S = TypeVar("S", bound=Settings)


def flat(kind: type[S], **given: Any) -> S:
    """Return settings of fields by their own names, whichever group they are in."""
    return kind.of(_nested(kind, given))


def changed(settings: S, **given: Any) -> S:
    """Return settings with some fields changed, by their own names."""
    nested = _nested(type(settings), given)
    return replace(settings, **{name: replace(getattr(settings, name), **fields) for name, fields in nested.items()})


def _nested(kind: type[Settings], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if isinstance(value, Group):
            usual = type(value)()
            said = {field: entry for field, entry in vars(value).items() if entry != getattr(usual, field)}
            found.setdefault(name, {}).update(said)
            continue
        group, field_name = _place(kind, name)
        found.setdefault(group, {})[field_name] = value
    return found


def _place(kind: type[Settings], name: str) -> tuple[str, str]:
    groups = groups_of(kind)
    if name in groups and (own := groups[name].OWN):
        return name, own
    if name in SHORT:
        group, _, field_name = SHORT[name].partition(".")
        return group, field_name
    (found,) = [group for group, of in groups.items() if name in hints_of(of)]
    return found, name


def make_plan(task: Task, settings: Settings, table: CostTable | DeviceTable | None = None) -> Plan:
    """Return the plan of a grid."""
    plan = plan_of(task, settings, table)
    assert isinstance(plan, Plan)
    return plan


def plan_of(task: Task, settings: Settings, table: CostTable | DeviceTable | None = None) -> Plan | ServedPlan:
    """Return the plan of a run on the engine of its settings."""
    return make.plan_of(task, settings, table, virtual=settings.engine.virtual)


Values = dict[tuple[int, str], Tensor]
"""Parameters and floating buffers by group and name."""


@dataclass(frozen=True)
class Outcome(verifying.Outcome):
    """What a run leaves, with the whole model's state averaged over groups."""

    mean: dict[str, Tensor]


@dataclass
class Recorder:
    """A sink that keeps what it is given; usable with any engine.

    Args:
        plan: of the run.
    """

    plan: Plan
    records: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    diagnoses: list[dict[str, Any]] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)
    means: list[dict[str, Tensor]] = field(default_factory=list)

    def report(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def evaluation(self, record: dict[str, Any], model: nn.Module) -> None:
        self.evaluations.append(record)
        self.means.append({n: t.clone() for n, t in model.state_dict().items()})

    def diagnosis(self, record: dict[str, Any]) -> None:
        self.diagnoses.append(record)

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        self.values.append(
            {(u.group, e.name): e.view(vectors[u]).clone() for u in vectors for e in self.plan.stages[u.stage].entries}
        )

    def close(self) -> None:
        pass

    def outcome(self) -> Outcome:
        """Return the state at the last evaluation and all losses."""
        return Outcome(self.values[-1], [record["group_loss"] for record in self.records], self.means[-1])


def run_simulator(task: Task, settings: Settings, plan: Plan | None = None) -> Outcome:
    """Run a task with all units in this process."""
    return record_simulator(task, settings, plan).outcome()


def record_simulator(task: Task, settings: Settings, plan: Plan | None = None) -> Recorder:
    """Run a task with all units in this process and keep every observation."""
    plan = make_plan(task, settings) if plan is None else plan
    sink = Recorder(plan)
    simulate(plan.program, build_agents(task, plan, plan.program.agents, CPU, sink))
    return sink


def run_reference(task: Task, settings: Settings, plan: Plan | None = None) -> Outcome:
    """Run the plain loop that says what the settings compute."""
    plan = make_plan(task, settings) if plan is None else plan
    loop = plain_loop(task, plan, CPU)
    assert loop is not None, "no plain loop computes this"
    trained = loop()
    made = verifying.outcome_of(trained)
    counters = {
        n: b for module in map(unwrapped, trained[0][0]) for n, b in module.named_buffers() if not b.is_floating_point()
    }
    sizes = settings.training.sizes(plan.grid.groups)
    means = {
        name: _mean([made.parameters[s, name] for s in range(plan.grid.groups)], sizes) for _, name in made.parameters
    }
    whole = cast_model(task, settings.training)
    for name, tensor in [*whole.named_parameters(remove_duplicate=False), *whole.named_buffers(remove_duplicate=False)]:
        tensor.data.copy_(means.get(name, counters.get(name, tensor)).data)
    return Outcome(made.parameters, made.losses, whole.state_dict())


def _mean(values: list[Tensor], sizes: tuple[int, ...]) -> Tensor:
    if all(torch.equal(value, values[0]) for value in values):
        return values[0]
    weights = [size / max(sizes) for size in sizes]
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total / sum(weights)


def hold_to_the_loop(task: Task, settings: Settings) -> None:
    """Hold the simulator against the plain loop; one plan says what both do."""
    plan = make_plan(task, settings)
    compare(run_simulator(task, settings, plan), run_reference(task, settings, plan))


def compare(one: Outcome, other: Outcome) -> None:
    """Hold two outcomes equal, bit for bit."""
    difference = verifying.compare("", one, other)
    assert difference.equal, difference
    assert one.mean.keys() == other.mean.keys()
    differ = [name for name, value in one.mean.items() if not torch.equal(value, other.mean[name])]
    assert not differ, f"mean model: {differ}"


def train(
    model: nn.Module,
    data: Any,
    *,
    loss: Any,
    optimizer: Any,
    scheduler: Any = None,
    test: Any = None,
    augment: Any = None,
    quiet: bool = False,
    **given: Any,
) -> Result:
    """Train like :func:`stalegrid.train`, with settings by their own names, whichever group they are in."""
    task = Task(model, data, loss, optimizer, scheduler, test, augment)
    return execute(task, flat(Settings, **given), quiet=quiet)
