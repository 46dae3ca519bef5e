"""Processes that others started agree on what they train; what the first one planned, all have."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stalegrid.data import given, pad_to
from stalegrid.engines.distributed.peers import Measured, Peers, layout_of_state
from stalegrid.errors import ConfigError, ProtocolError
from stalegrid.plans.plan import Plan
from stalegrid.timing.costs import Cost, CostTable
from tests.cases import changed, make_plan, make_settings, make_task
from tests.engines.distributed.forked import together


class Drawn(nn.Module):
    """A model that has everything a state can have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2).double()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("hidden", torch.rand(4, 2).t(), persistent=False)
        self.register_buffer("flag", torch.tensor(bool(torch.rand(()) > 0.5)))


def test_all_have_the_state_of_the_first_one_hidden_buffers_included(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        torch.manual_seed(rank)
        model = Drawn()
        peers = Peers(rank, 3, rank, 10.0)
        peers.check_same("models", lambda: layout_of_state(model))
        peers.take_state(model)
        return repr([(name, t.tolist()) for name, t in [*model.named_parameters(), *model.named_buffers()]])

    found = together(tmp_path, 3, act)
    assert "hidden" in found[0]
    assert found == [found[0]] * 3


class Scaled(nn.Linear):
    """A layer of the same layout that computes something else."""

    def __init__(self) -> None:
        super().__init__(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("others", [lambda: nn.Linear(3, 3), Scaled], ids=["layout", "kind"])
def test_models_of_different_layouts_or_kinds_are_refused(others: Callable[[], nn.Module], tmp_path: Path) -> None:
    def act(rank: int) -> str:
        model = others() if rank == 2 else nn.Linear(3, 2)
        Peers(rank, 3, rank, 10.0).check_same("models", lambda: layout_of_state(model))
        return "the same"

    told = "ConfigError: processes have different models (process 0 and processes: [2])"
    assert [said.split(";")[0] for said in together(tmp_path, 3, act)] == [told] * 3


class Traced(nn.Module):
    """A model whose operations depend on the process in one way, its layout in none."""

    def __init__(self, way: str, rank: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(72, 3), nn.Linear(3, 3)
        self.act = torch.tanh if rank and way == "function" else torch.relu
        self.least = float(rank) if way == "argument" else 0.0
        self.mask = torch.full((3,), float(rank)) if way == "constant" else torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.act(self.first(x.flatten(1))) * self.mask
        return self.last(seen.clamp(min=self.least))  # type: ignore[no-any-return]


def test_processes_whose_models_compute_differently_are_refused(tmp_path: Path) -> None:
    settings = make_settings(1, 2, cuts=["last"])

    def agreed(way: str, rank: int) -> str:
        task = dataclasses.replace(make_task(), model=Traced(way, rank))
        try:
            Peers(rank, 2, rank, 20.0).agree(
                "the same", lambda: make_plan(task, settings), lambda m: make_plan(task, m.into(settings), m.table)
            )
        except ConfigError as error:
            return str(error).split(";")[0]
        return "agreed"

    def act(rank: int) -> str:
        return "\n".join(agreed(way, rank) for way in ("function", "argument", "constant", "none"))

    refused = "processes have different plans (process 0 and processes: [1])"
    assert together(tmp_path, 2, act) == ["\n".join([*[refused] * 3, "agreed"])] * 2


class Growing(nn.Module):
    """A model that depends on the process for long sequences alone."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
        self.rank = float(rank)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h + self.rank if x.shape[1] > 2 else h).mean(1)


def test_what_a_model_computes_of_every_shape_is_compared(tmp_path: Path) -> None:
    data = given([(torch.ones(1 + i % 2, 3), 0) for i in range(16)], pad_to([2, 4], (0, None)))  # type: ignore[arg-type]

    def agreed(lengths: int, rank: int) -> str:
        settings = make_settings(1, 2, cuts=["last"], shapes=lengths)
        task = dataclasses.replace(make_task(), model=Growing(rank), data=data)
        try:
            Peers(rank, 2, rank, 20.0).agree(
                "the same", lambda: make_plan(task, settings), lambda m: make_plan(task, m.into(settings), m.table)
            )
        except ConfigError as error:
            return str(error).split(";")[0]
        return "agreed"

    refused = "processes have different plans (process 0 and processes: [1])"
    made = together(tmp_path, 2, lambda rank: "\n".join(agreed(lengths, rank) for lengths in (1, 2)))
    assert made == [f"agreed\n{refused}"] * 2


def test_the_plan_of_the_first_one_is_made_again_without_its_files(tmp_path: Path) -> None:
    costs = tmp_path / "costs.yaml"
    CostTable(4, tuple(Cost(forward=f, backward=2 * f) for f in (1.0, 0.1, 3.0)), 0.25).write(costs)
    asked = make_settings(1, 3, costs=costs, staleness="auto", emulate=True)

    def act(rank: int) -> str:
        task = make_task()
        settings = changed(asked, costs=Path("/not/here")) if rank else asked
        made = Peers(rank, 3, rank, 20.0).agree(
            "the same", lambda: make_plan(task, settings), lambda m: make_plan(task, m.into(settings), m.table)
        )
        return repr((made.program.schedule, made.devices, made.stages, made.partition.names))

    found = together(tmp_path, 3, act)
    assert found[0].startswith("(Schedule(")
    assert found == [found[0]] * 3


def test_processes_that_are_asked_for_different_things_are_refused(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        def made() -> Plan:
            raise AssertionError("nothing is planned")

        with pytest.raises(ConfigError, match=r"different settings \(process 0 and processes: \[1\]\)"):
            Peers(rank, 2, rank, 20.0).agree(f"seed {rank}", made, lambda measured: made())
        return "refused"

    assert together(tmp_path, 2, act) == ["refused"] * 2


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"no json", b"[" * 100_000])
def test_what_is_no_plan_of_the_first_one_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError, match="the first process sent no plan"):
        Measured.read(text)
