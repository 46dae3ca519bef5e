"""What processes that others started must have in common before they train, and what they share afterwards.

Does not know: how they met.

All are asked for the same.  The first one plans, and what it has measured travels as text: each process makes its own
plan of that.  The model travels as tensors in place.  So nothing has to be taken on trust that is more than numbers and
text.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from stalegrid.data import bytes_of
from stalegrid.engines.distributed import talk
from stalegrid.engines.distributed.job import Job
from stalegrid.engines.distributed.worker import work
from stalegrid.engines.distributed.world import homes
from stalegrid.errors import ConfigError, ProtocolError
from stalegrid.observe import Record
from stalegrid.partition import Made, Operations
from stalegrid.plans import Choices, Plan, ServedPlan, Task, dealt_by, fingerprint
from stalegrid.timing import CostTable, DeviceTable, parse_costs

P = TypeVar("P", Plan, ServedPlan, Plan | ServedPlan)
C = TypeVar("C", bound=Choices)

_DIGEST = 32  # bytes
_PATH = 4096  # bytes of a folder's name at most


@dataclass(frozen=True)
class Peers:
    """The processes that share a run.

    Args:
        rank: of this one.
        size: how many there are.
        local_rank: number of this one on its host.
        patience: seconds that one may give no sign of life.
    """

    rank: int
    size: int
    local_rank: int
    patience: float

    def check_same(self, what: str, of: Callable[[], str]) -> None:
        """Check that something is the same in every process.

        Args:
            what: what is compared.
            of: returns it as text.

        Raises:
            ConfigError: in every process, if they differ.
        """
        values = talk.gather(lambda: _digest(of()), self.patience, _DIGEST)
        others = [rank for rank, value in enumerate(values) if value != values[0]]
        if others:
            raise ConfigError(
                f"processes have different {what} (process 0 and processes: {others}); let the script do the same in "
                "all of them, and seed what it draws, such as a split"
            )

    def check_task(self, task: Task) -> None:
        """Check that all processes have the same model, initial values and data; see :meth:`check_same`."""
        self.check_same("models", lambda: layout_of_state(task.model))
        self.check_same("initial values", lambda: "" if task.source is None else task.source.text())
        self.check_same("data", lambda: fingerprint(task))

    def take_state(self, model: nn.Module) -> None:
        """Let all processes have the parameters and buffers that the model of the first one has."""
        talk.spread_tensors(list(_content(model).values()), self.patience)

    @contextmanager
    def one_state(self, model: nn.Module) -> Iterator[None]:
        """Let the user's models have the state of the first one for a while.

        They are not copied: whether an optimizer's factory knows parameters by identity shows on the user's own.
        """
        own = {name: tensor.detach().clone() for name, tensor in _content(model).items()}
        try:
            self.take_state(model)
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _content(model).items():
                    tensor.copy_(own[name])

    def agree(self, asked: str, prepare: Callable[[], P], again: Callable[["Measured"], P]) -> P:
        """Plan in the first process and, in the same way, in all others.

        Args:
            asked: what this process was asked for, as text.
            prepare: settles and checks everything, in the first process.
            again: settles and checks everything in the others, given what the first one has measured.

        Returns:
            The plan, which computes the same in every process.

        Raises:
            ConfigError: something cannot be run, or the processes are asked for different things.
        """
        self.check_same("settings", lambda: asked)
        made: list[P] = []

        def first() -> bytes:
            made.append(prepare())
            homes(made[0].program, self.size, spare=False)
            return Measured.of(made[0]).text()

        text = talk.spread(first, self.patience)
        found = talk.everybody(lambda: made[0] if made else again(Measured.read(text)), self.patience)
        self.check_same("plans", lambda: _shape(found))
        return found

    @contextmanager
    def shared(self, make: Callable[[], AbstractContextManager[Path]]) -> Iterator[Path]:
        """Open a folder in the first process and tell all others its name."""
        if self.rank:
            yield Path(talk.spread(bytes, self.patience, _PATH).decode())
            return
        folder: list[Path] = []
        with ExitStack() as opened:

            def enter() -> bytes:
                folder.append(opened.enter_context(make()))
                return str(folder[0]).encode()

            talk.spread(enter, self.patience, _PATH)
            yield folder[0]

    def run(self, job: Job, summary: Callable[[], Record], leaving: Callable[[], bool]) -> Record:
        """Run this process's agents to the end and return the summary, which the first process reads."""
        text = talk.spread_after(
            lambda: work(job, self.local_rank, spare=False, leaving=leaving),
            lambda: json.dumps(summary()).encode(),
            self.patience,
        )
        found: Record = json.loads(text)
        return found


def layout_of_state(model: nn.Module) -> str:
    """Describe a model: kinds of its modules; names, shapes and types of its parameters and buffers.

    Raises:
        ConfigError: its state is more than tensors.
    """
    more = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if more:
        raise ConfigError(
            f"a model whose state is more than tensors cannot be given to other hosts (name: {more[0]}); start the "
            "script without torchrun, or leave out its get_extra_state"
        )
    kinds = [(name, type(module).__qualname__) for name, module in model.named_modules()]
    return repr((kinds, [(name, tuple(t.shape), str(t.dtype)) for name, t in _state(model).items()]))


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers, those that a state dict leaves out included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _content(model: nn.Module) -> dict[str, Tensor]:
    """Return what of a model's state has a content; a model that is built stage by stage has it elsewhere."""
    return {name: tensor for name, tensor in _state(model).items() if not tensor.is_meta}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class Measured:
    """What a plan has measured, and another process would measure otherwise.

    Args:
        cuts: names of the modules that begin stages; None where nothing is cut.
        staleness: of each stage, in batches; None where the method has none.
        costs: a table of what stages cost, as plain values; None where nothing is known.
    """

    cuts: list[str] | None
    staleness: list[int] | None
    costs: dict[str, Any] | None

    @classmethod
    def of(cls, plan: Plan | ServedPlan) -> "Measured":
        """Return what a plan has measured."""
        known = plan.devices.costs if plan.time_model is not None else None  # not such as an order was only drawn with
        settled = plan.settled(Choices())
        size = max(1, plan.training.largest)
        table: CostTable | DeviceTable | None = None
        if known is not None:
            table = plan.devices.unequal or CostTable(size, known, plan.devices.handling)
        staleness = settled.method.staleness
        assert staleness != "auto"
        return cls(settled.grid.cuts, staleness, None if table is None else table.plain())

    def into(self, asked: C) -> C:
        """Write it into what was asked for, which then is not measured again."""
        grid = dataclasses.replace(asked.grid, cuts=self.cuts)
        method = dataclasses.replace(asked.method, staleness=self.staleness, queues=None)
        return dataclasses.replace(asked, grid=grid, method=method)

    @property
    def table(self) -> CostTable | DeviceTable | None:
        """What stages cost."""
        return None if self.costs is None else parse_costs(self.costs)

    def text(self) -> bytes:
        """Return it as text."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def read(cls, text: bytes) -> "Measured":
        """Undo :meth:`text`.

        Raises:
            ProtocolError: it is something else.
        """
        try:
            found = json.loads(text)
            return cls(found["cuts"], found["staleness"], found["costs"])
        except (ValueError, TypeError, KeyError, RecursionError) as problem:
            raise ProtocolError(f"the first process sent no plan: {problem}") from problem


def _shape(plan: Plan | ServedPlan) -> str:
    """Describe what all must agree on: whose vectors read how, what travels, what a cut model computes, whose data."""
    program = plan.program
    edges = [(str(edge), plan.layouts(edge)) for agent in program.agents for edge in program.inbound(agent)]
    variants = plan.partition.variants if isinstance(plan, Plan) else ()
    dealt = dealt_by(plan)  # which is drawn by NumPy, of which hosts may have several versions
    samples = None if dealt is None else dealt.digest
    return repr((program.updates, plan.stages, edges, [_graph(variant.operations) for variant in variants], samples))


def _graph(operations: Operations) -> list[Any]:
    listed = [
        (o.name, o.kind, _named(o.target), map_aggregate(o.args, _plainly), map_aggregate(o.kwargs, _plainly))
        for o in operations.listed
    ]
    dense = {name: t for name, t in operations.constants.items() if t.layout is torch.strided}
    crossing = operations.kinds
    kinds = sorted(crossing.complexes), sorted(crossing.still), str(operations.form)
    return [*listed, kinds, *((name, hashlib.sha256(bytes_of(t)).hexdigest()) for name, t in dense.items())]


def _named(target: Callable[..., Any] | str) -> str:
    return target if isinstance(target, str) else getattr(target, "__qualname__", type(target).__name__)


def _plainly(value: Any) -> Any:
    """Return an argument that is written alike in every process."""
    return value if isinstance(value, Made | str | int | float | complex | torch.dtype | None) else type(value).__name__
