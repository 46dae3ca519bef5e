import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.methods.choose import find_grid
from stalegrid.plans import devices as devices_module
from stalegrid.plans.devices import ESTIMATED, Devices
from stalegrid.plans.devices import settle_devices as settled
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.lateral import NoLateral
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import stale
from stalegrid.stages.views.named import find_view
from stalegrid.timing.clock import TimeModel
from stalegrid.timing.columns import DeviceTable
from stalegrid.timing.costs import Cost, CostTable, frozen_stages
from stalegrid.timing.disturbances import Disturbances
from stalegrid.timing.estimating import Estimate, estimate
from stalegrid.timing.links import Link
from tests.cases import flat

COST = Cost(forward=1, backward=2)
DISTURBED: dict[str, dict[str, Any]] = {
    "slow": {"slow": "0,0=2"},
    "jitter": {"jitter": 0.1},
    "stalls": {"stalls": [0.1, 5.0]},
    "link": {"link": [1.0]},
    "lateral": {"lateral_link": [1.0, 10.0]},
    "outages": {"outages": "0,0@1-2"},
}


def table(parts: int = 4, batch_size: int = 32) -> CostTable:
    return CostTable(batch_size, tuple(Cost(forward=1, backward=2, output=8, name=f"p{i}") for i in range(parts)), 0.5)


def settings(**more: Any) -> Settings:
    return flat(Settings, **({"engine": "simulator", "batch_size": 32} | more))


def settle_devices(
    asked: Settings, grid: Grid, table: CostTable | DeviceTable | None
) -> tuple[Devices, list[str] | None]:
    return settled(asked.devices, grid, asked.grid.cuts, asked.training, table, virtual=asked.engine.virtual)


def test_nothing_known_is_no_costs_and_the_users_cuts() -> None:
    devices, cuts = settle_devices(settings(seed=4, cuts=["fc"]), Grid(1, 2), None)
    assert devices == Devices(Disturbances(seed=4), None)
    assert cuts == ["fc"]


def test_stages_cost_what_the_table_is_cut_into_and_the_model_is_cut_there() -> None:
    devices, cuts = settle_devices(settings(), Grid(1, 2), table())
    assert devices.costs == table().cut(2)
    assert devices.handling == 0.5
    assert cuts == ["p2"]
    devices, cuts = settle_devices(settings(cuts=["p1"]), Grid(1, 2), table())
    assert devices.costs is not None
    assert [cost.forward for cost in devices.costs] == [1, 3]
    assert cuts == ["p1"]


def test_a_table_of_as_many_parts_as_stages_is_taken_for_the_cuts_of_the_user_or_else_has_its_own() -> None:
    devices, cuts = settle_devices(settings(cuts=["conv", "fc", "norm"]), Grid(1, 4), table(4))
    assert devices.costs == table(4).parts
    assert cuts == ["conv", "fc", "norm"]
    devices, cuts = settle_devices(settings(), Grid(1, 4), table(4))
    assert [cost.name for cost in devices.costs or ()] == ["p0", "p1", "p2", "p3"]
    assert cuts == ["p1", "p2", "p3"]


def test_parts_without_names_say_nothing_of_where_the_model_is_cut() -> None:
    for name in ("", "{}"):
        parts = tuple(Cost(forward=1, backward=2, name=name.format(i)) for i in range(2))
        devices, cuts = settle_devices(settings(), Grid(1, 2), CostTable(32, parts))
        assert devices.costs == parts
        assert cuts is None


def test_the_named_table_is_read(tmp_path: Path) -> None:
    table().write(tmp_path / "costs.yaml")
    devices, _ = settle_devices(settings(costs=tmp_path / "costs.yaml"), Grid(1, 2), None)
    assert devices.costs == table().cut(2)
    with pytest.raises(ConfigError, match=r"cannot be read \(costs: nowhere\)"):
        settle_devices(settings(costs="nowhere"), Grid(1, 2), None)


def test_costs_of_another_batch_size_are_turned_into_those_of_this_one() -> None:
    devices, _ = settle_devices(settings(batch_size=16), Grid(1, 2), table())
    assert devices.costs is not None
    assert [(cost.forward, cost.backward, cost.output) for cost in devices.costs] == [(1, 2, 4)] * 2


def test_what_is_asked_of_the_devices_is_kept() -> None:
    asked = settings(slow="0,1=2", link=[1.5, 10.0], seed=3)
    devices, _ = settle_devices(asked, Grid(1, 2), table())
    assert devices.disturbances == Disturbances(link=Link(1.5, 10.0), slow={Unit(0, 1): 2.0}, seed=3)


def test_too_few_parts_or_unknown_cuts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fewer parts than stages \(parts: 2, stages: 3\)"):
        settle_devices(settings(), Grid(1, 3), table(2))
    with pytest.raises(ConfigError, match=r"no part of that name \(cut: 'fc'\)"):
        settle_devices(settings(cuts=["fc"]), Grid(1, 2), table())


@pytest.mark.parametrize("disturbed", DISTURBED)
def test_the_simulator_disturbs_nothing_without_a_clock(disturbed: str) -> None:
    asked = settings(**DISTURBED[disturbed])
    with pytest.raises(ConfigError, match=r"need a clock, .* give --costs FILE"):
        settle_devices(asked, Grid(1, 2), None)
    assert settle_devices(asked, Grid(1, 2), table())[0].disturbances != Disturbances()


@pytest.mark.parametrize("disturbed", DISTURBED)
def test_processes_are_slowed_down_but_their_links_are_what_they_are(disturbed: str) -> None:
    asked = settings(engine="processes", **DISTURBED[disturbed])
    if disturbed in ("slow", "jitter", "stalls"):
        assert settle_devices(asked, Grid(1, 2), None)[0].disturbances != Disturbances()
    else:
        for costs in (None, table()):
            with pytest.raises(ConfigError, match=r"links and outages are not emulated .* take engine simulator"):
                settle_devices(asked, Grid(1, 2), costs)


@pytest.mark.parametrize(("engine", "known"), [("simulator", True), ("simulator", False), ("processes", False)])
def test_emulation_is_of_costs_and_on_processes(engine: str, known: bool) -> None:
    with pytest.raises(ConfigError, match=r"emulate is for processes and needs costs; give --engine processes --costs"):
        settle_devices(settings(engine=engine, emulate=True), Grid(1, 2), table() if known else None)
    assert settle_devices(settings(engine="processes", emulate=True), Grid(1, 2), table())[0].costs is not None


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_unit_that_does_not_exist_is_refused_on_every_engine(engine: str) -> None:
    with pytest.raises(ConfigError, match=r"no such unit \(unit: 0,2, groups: 1, stages: 2\)"):
        settle_devices(settings(engine=engine, slow="0,2=3"), Grid(1, 2), table())


def test_a_time_model_weighs_messages_by_costs_or_as_told() -> None:
    program = Program(Grid(1, 2), stale([1, 0], 4), 1)
    devices, _ = settle_devices(settings(), program.grid, table(2))
    edge = Edge("activation", Unit(0, 0), Unit(0, 1))
    model = devices.time_model(program)
    assert (model.stages, model.micro_batches, model.handling) == (table(2).cut(2), 4, 0.5)
    assert model.disturbances is devices.disturbances
    assert model.nbytes(edge) == 2
    assert devices.time_model(program, lambda edge: 77).nbytes(edge) == 77


def enough(devices: Devices, stages: int, within: float = 0.02, method: str = "pipedream") -> list[int]:
    found = find_grid(method)
    view = find_view(found.view)
    return devices.enough_staleness(found, Grid(1, stages), view, 1, lambda updates: NoLateral(), within)


def test_staleness_is_what_the_devices_need_to_be_within_the_share() -> None:
    devices = Devices(Disturbances(link=Link(0.5)), (COST,) * 3)
    assert [enough(devices, 3, within) for within in (0.0, 0.02, 0.15, 0.2)] == [
        [4, 2, 0],
        [4, 2, 0],
        [3, 1, 0],
        [2, 1, 0],
    ]
    assert enough(Devices(Disturbances(), (COST,) * 3), 3) == [2, 1, 0]
    assert enough(Devices(Disturbances(), (COST,)), 1) == [0]


def test_where_a_slow_stage_sets_the_pace_little_staleness_is_enough() -> None:
    assert enough(Devices(Disturbances(slow={Unit(0, 2): 50.0}), (COST,) * 3), 3) == [1, 0, 0]


def test_weights_that_stages_share_take_their_time_on_the_way() -> None:
    link, tied = Link(0.0, 1000), replace(COST, tied={"w": 200_000})  # 1.6 ms
    apart, together = (Devices(Disturbances(link=link), costs) for costs in ((COST,) * 3, (tied, COST, tied)))
    assert enough(apart, 3) == [2, 1, 0]
    assert enough(together, 3) == [3, 1, 0], "a first stage that is further ahead sends its weights meanwhile"


def test_what_is_frozen_makes_no_second_forward() -> None:
    both = (Cost(forward=3, backward=0, frozen=True), Cost(forward=1, backward=2))
    trained = (replace(both[0], frozen=False), both[1])
    devices, usual = (Devices(Disturbances(), costs) for costs in (both, trained))
    estimates: list[float] = []
    for costs in (devices, usual):
        program = Program(Grid(1, 2), stale([1, 0]), 40, recompute=True, frozen=frozen_stages(costs.costs or ()))
        estimates.append(estimate(program, costs.time_model(program)).batch)
    assert estimates == [3, 6]
    assert enough(devices, 2, method="dsp") == [1, 0]


def test_a_second_forward_counts_where_the_view_makes_one() -> None:
    devices = Devices(Disturbances(link=Link(0.5)), (Cost(forward=1, backward=2, recompute=3),) * 3)
    assert [enough(devices, 3, method=name) for name in ("pipedream", "dsp")] == [[4, 2, 0], [2, 1, 0]]


def test_what_takes_long_to_fill_is_estimated_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[tuple[int, ...], int] = {}

    def noted(program: Program, model: TimeModel) -> Estimate:
        seen[program.schedule.windows] = program.updates
        return estimate(replace(program, updates=3), model)

    monkeypatch.setattr(devices_module, "estimate", noted)
    enough(Devices(Disturbances(), (COST,) * 9), 9)
    assert seen[tuple(8 * (8 - k) + 1 for k in range(9))] == 4 * 65 + 4
    assert all(updates >= max(ESTIMATED, 4 * windows[0]) for windows, updates in seen.items())


def test_staleness_auto_needs_costs_a_share_and_a_method_that_has_one() -> None:
    with pytest.raises(ConfigError, match=r"estimated from costs \(costs: None\); measure them with stalegrid profile"):
        enough(Devices(Disturbances(), None), 2)
    for within in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=rf"from 0 to below 1 \(within: {within}\)"):
            enough(Devices(Disturbances(), (COST,) * 2), 2, within)
    with pytest.raises(ConfigError, match=r"gpipe flushes at every update and has no staleness \(staleness: auto\)"):
        enough(Devices(Disturbances(), (COST,) * 2), 2, method="gpipe")


def test_an_estimate_at_the_longest_staleness_is_not_faster_than_the_slowest_stage() -> None:
    costs = (Cost(forward=2, backward=4), *(COST,) * 9)
    devices = Devices(Disturbances(), costs)
    program = Program(Grid(1, 10), stale([8 * (9 - k) for k in range(10)]), ESTIMATED)
    assert estimate(program, devices.time_model(program)).batch >= 6.0


def test_of_ten_stages_of_which_the_first_is_slowest_none_needs_much_staleness() -> None:
    devices = Devices(Disturbances(), (Cost(forward=2, backward=4), *(COST,) * 9))
    assert enough(devices, 10)[0] <= 9


WAYS = {("a", "b"): Link(1.0, 100.0), ("b", "a"): Link(1.0, 100.0)}


def unequal(*times: float, hosts: str = "", links: bool = False) -> DeviceTable:
    """Return devices of which each is so many times as slow as that of :func:`table`."""
    columns = tuple(
        replace(table(), parts=tuple(replace(p, forward=time, backward=2 * time) for p in table().parts))
        for time in times
    )
    return DeviceTable(columns, tuple(hosts) or ("a",) * len(times), WAYS if links else {})


def test_a_faster_device_has_more_parts_and_what_equal_cuts_would_be_is_known() -> None:
    devices, cuts = settle_devices(settings(), Grid(1, 2), unequal(3, 1))
    assert cuts == ["p1"]
    assert devices.cuts == ["p1"]
    assert devices.unequal == unequal(3, 1).joined([0, 1, 4])
    assert devices.costs == devices.unequal.parts
    assert devices.alike is not None
    assert devices.alike.cuts == ["p2"]
    assert devices.alike.unequal == unequal(3, 1).joined([0, 2, 4])


@pytest.mark.parametrize(("times", "cuts"), [((1, 1), None), ((3, 1), ["p2"]), ((3, 1), ["p3"])])
def test_there_is_nothing_to_compare_with_where_cuts_are_equal_or_the_users(
    times: tuple[int, int], cuts: list[str] | None
) -> None:
    devices, found = settle_devices(settings(cuts=cuts), Grid(1, 2), unequal(*times))
    assert (devices.alike, found) == (None, cuts or ["p2"])
    assert devices.unequal is not None


def test_staleness_is_what_unequal_devices_need() -> None:
    slow, _ = settle_devices(settings(), Grid(1, 4), unequal(1, 1, 1, 40))
    even, _ = settle_devices(settings(), Grid(1, 4), unequal(1, 1, 1, 1))
    assert enough(even, 4) == [3, 2, 1, 0]
    # The last stage takes 120 ms; without a batch ahead the one before keeps it waiting for 3, more than two percent.
    assert enough(slow, 4) == [1, 1, 1, 0]


def test_the_named_table_may_be_one_of_several_devices(tmp_path: Path) -> None:
    unequal(3, 1).write(tmp_path / "costs.yaml")
    devices, cuts = settle_devices(settings(costs=tmp_path / "costs.yaml", batch_size=16), Grid(1, 2), None)
    assert devices.unequal == unequal(3, 1).of_batch(16).joined([0, 1, 4])
    assert cuts == ["p1"]


@pytest.mark.parametrize("cuts", [None, ["p2"], ["p1", "p2", "p3"]])
def test_a_table_of_another_number_of_devices_is_refused(cuts: list[str] | None) -> None:
    for grid in (Grid(1, 3), Grid(2, 4), Grid(1, 4)):
        with pytest.raises(ConfigError, match=rf"\(devices: 2, groups: {grid.groups}, stages: {grid.stages}\)"):
            settle_devices(settings(cuts=cuts), grid, unequal(1, 2))


@pytest.mark.parametrize(("name", "given"), [("link", [1.0]), ("lateral_link", [0.0, 10.0])])
def test_links_are_told_once(name: str, given: list[float]) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"(devices.{name}: {given}); leave it out")):
        settle_devices(settings(**{name: given}), Grid(1, 2), unequal(1, 2, hosts="ab", links=True))
    devices, _ = settle_devices(settings(**{name: given}), Grid(1, 2), unequal(1, 2))
    assert devices.disturbances != Disturbances(), "hosts of a table without links have those of the settings"


def test_links_of_a_table_are_not_emulated() -> None:
    asked = settings(engine="processes", emulate=True)
    with pytest.raises(ConfigError, match="links are not emulated on processes, and the table of devices has some"):
        settle_devices(asked, Grid(1, 2), unequal(1, 2, hosts="ab", links=True))
    assert settle_devices(asked, Grid(1, 2), unequal(1, 2))[0].unequal is not None
    devices, _ = settle_devices(settings(engine="processes"), Grid(1, 2), unequal(1, 2, hosts="ab", links=True))
    assert devices.unequal is not None, "real processes have real links, and the table says where to cut"


def test_links_between_hosts_are_those_of_the_table() -> None:
    devices, _ = settle_devices(settings(), Grid(1, 2), unequal(1, 1, hosts="ab", links=True))
    model = devices.time_model(Program(Grid(1, 2), stale([1, 0]), 1))
    assert model.link(Edge("activation", Unit(0, 0), Unit(0, 1))) == WAYS["a", "b"]
    near, _ = settle_devices(settings(link=[3.0]), Grid(1, 2), unequal(1, 1))
    model = near.time_model(Program(Grid(1, 2), stale([1, 0]), 1))
    assert model.link(Edge("activation", Unit(0, 0), Unit(0, 1))) == Link(3.0)
