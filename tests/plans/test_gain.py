import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stalegrid.engines.distributed.peers import Measured
from stalegrid.errors import ConfigError
from stalegrid.plans.gain import Gain
from stalegrid.plans.make import plan_of
from stalegrid.plans.plan import Plan
from stalegrid.timing.columns import DeviceTable
from stalegrid.timing.costs import Cost, CostTable
from tests.cases import CUTS, make_settings, make_task


def devices(*times: float, names: tuple[str, ...] = ("input", *CUTS[4])) -> DeviceTable:
    """Return devices that take so many times 3 ms for a part."""
    columns = (CostTable(4, tuple(Cost(forward=t, backward=2 * t, name=name) for name in names)) for t in times)
    return DeviceTable(tuple(columns), ("a",) * len(times))


def planned(table: DeviceTable, **asked: Any) -> Plan:
    chosen = {"stages": 2, "cuts": None, "method": "pipedream", "engine": "simulator"}
    found = plan_of(make_task(), make_settings(**(chosen | asked)), table, virtual=True)
    assert isinstance(found, Plan)
    return found


def test_the_gain_is_what_the_clock_finds_with_either_cut() -> None:
    plan = planned(devices(3, 1))
    assert plan.partition.names == ("dropout1",)
    found = plan.devices.gain
    assert found == Gain(["dropout1"], ["norm2"], 9.0, 18.0)
    assert str(found) == (
        "cut for unequal devices at dropout1: 9 ms/batch, 2 times as fast as cut for equal ones at norm2: 18 ms/batch "
        "(estimated)"
    )


def test_groups_that_wait_for_each_other_gain_what_the_slowest_does() -> None:
    found = planned(devices(3, 1, 1, 1), groups=2, method="pham-ahn").devices.gain
    assert found is not None
    assert (found.batch, found.alike_batch) == (9, 18)


def test_costs_of_nothing_gain_nothing_that_could_be_divided() -> None:
    assert str(Gain(["b"], ["c"], 0.0, 0.0)).startswith(
        "cut for unequal devices at b: 0 ms/batch as cut for equal ones"
    )


@pytest.mark.parametrize(("times", "cuts"), [((1, 1), None), ((3, 1), ["dropout1"])])
def test_nothing_is_gained_where_devices_are_alike_or_the_user_cuts(
    times: tuple[int, int], cuts: list[str] | None
) -> None:
    plan = planned(devices(*times), cuts=cuts)
    assert (plan.devices.gain, plan.devices.alike) == (None, None)


def test_where_the_clock_finds_the_equal_cut_faster_it_is_taken() -> None:
    # A second forward takes the first device 5 ms a part, which cuts do not look at: 24 ms with three, 16 with two.
    plain = devices(1, 2)
    first = replace(plain.columns[0], parts=tuple(replace(part, recompute=5) for part in plain.columns[0].parts))
    table = replace(plain, columns=(first, plain.columns[1]))
    without = planned(table)
    assert without.partition.names == ("fc1",)
    assert without.devices.gain == Gain(["fc1"], ["norm2"], 9.0, 12.0)
    plan = planned(table, method="dsp")
    assert plan.partition.names == ("norm2",)
    assert plan.devices.cuts == ["norm2"]
    assert (plan.devices.gain, plan.devices.alike) == (None, None)


def test_learners_have_no_table_of_devices(tmp_path: Path) -> None:
    asked = make_settings(method="softsync", learners=2, groups=None, stages=None, cuts=None, engine="simulator")
    with pytest.raises(ConfigError, match=r"table of devices is for grids, .* \(method: softsync, devices: 2\)"):
        plan_of(make_task(scheduler=None), asked, devices(3, 1), virtual=True)


def test_a_table_of_another_model_is_refused_and_what_it_says_is_told() -> None:
    said = r"where the cost table says \(cuts: b\): the model has no such .*\(cut: 'b'\).* that of another model\?"
    with pytest.raises(ConfigError, match=said):
        planned(devices(3, 1, names=("a", "b", "c")))
    with pytest.raises(ConfigError, match=r"^the model has no such .*\(cut: 'conv9'\)"):
        planned(devices(3, 1, names=("a", "conv9", "c")), cuts=["conv9"])


def test_another_process_plans_with_the_same_devices() -> None:
    plan = planned(devices(3, 1))
    measured = Measured.read(Measured.of(plan).text())
    assert json.loads(measured.text())["cuts"] == ["dropout1"]
    asked = measured.into(make_settings(stages=2, cuts=None, method="pipedream", engine="simulator"))
    again = plan_of(make_task(), asked, measured.table, virtual=True)
    assert again.devices.unequal == plan.devices.unequal == devices(3, 1).joined([0, 1, 4])
    assert again.devices.costs == plan.devices.costs
