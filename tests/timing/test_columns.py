import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.lateral import NoLateral
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import stale
from stalegrid.timing.clock import TimeModel, message_bytes
from stalegrid.timing.columns import DeviceTable, parse_costs, read_costs
from stalegrid.timing.costs import Cost, CostTable
from stalegrid.timing.disturbances import Disturbances
from stalegrid.timing.estimating import estimate
from stalegrid.timing.links import Link
from stalegrid.written.kept import read_yaml

WAYS = {("a", "b"): Link(1.0, 100.0), ("b", "a"): Link(2.0, 50.0)}


def column(times: float, parts: int = 6, handling: float = 0.0, nbytes: int = 0) -> CostTable:
    """Return what a device takes that is so many times as slow, of parts of 3 ms."""
    costs = (Cost(forward=times, backward=2 * times, input=nbytes, output=nbytes, name=f"p{i}") for i in range(parts))
    return CostTable(8, tuple(costs), handling)


def devices(*times: float, parts: int = 6, nbytes: int = 0) -> DeviceTable:
    return DeviceTable(tuple(column(t, parts, nbytes=nbytes) for t in times), ("a",) * len(times))


@pytest.mark.parametrize(
    ("times", "bounds"),
    [
        ((1, 1), [0, 3, 6]),
        ((1, 2), [0, 4, 6]),
        ((2, 1), [0, 2, 6]),
        ((1, 5), [0, 5, 6]),
        ((1, 2, 1), [0, 2, 3, 6]),
        ((3, 1, 2), [0, 1, 4, 6]),
    ],
)
def test_a_faster_device_has_more_parts_and_devices_keep_their_order(
    times: tuple[float, ...], bounds: list[int]
) -> None:
    assert devices(*times).bounds(Grid(1, len(times))) == bounds


def test_of_several_groups_the_slowest_device_of_a_stage_counts() -> None:
    assert devices(1, 1, 2, 1).bounds(Grid(2, 2)) == [0, 2, 6]
    assert devices(1, 2, 2, 1).bounds(Grid(2, 2)) == [0, 3, 6]


def test_a_slow_link_takes_a_cut_to_where_little_crosses() -> None:
    # 1 MB takes 80 ms at 100 Mbit/s, 10 kB takes 0.8 ms; the work of three parts is 9 ms.
    sizes = (1_000_000, 1_000_000, 1_000_000, 1_000_000, 10_000, 0)
    parts = tuple(
        Cost(forward=1, backward=2, input=sizes[i - 1] if i else 0, output=size, name=f"p{i}")
        for i, size in enumerate(sizes)
    )
    one = CostTable(8, parts)
    assert DeviceTable((one, one), ("a", "a")).bounds(Grid(1, 2)) == [0, 3, 6]
    assert DeviceTable((one, one), ("a", "b"), WAYS).bounds(Grid(1, 2)) == [0, 5, 6]
    # Gradients go back over the other way; nothing below needs any where it is frozen.
    back = {("a", "b"): Link(1.0), ("b", "a"): Link(1.0, 100.0)}
    assert DeviceTable((one, one), ("a", "b"), back).bounds(Grid(1, 2)) == [0, 5, 6]
    frozen = replace(one, parts=tuple(replace(part, frozen=i < 4) for i, part in enumerate(parts)))
    assert DeviceTable((frozen, frozen), ("a", "b"), back).bounds(Grid(1, 2)) == [0, 3, 6]


def test_cuts_of_the_user_are_kept_and_must_be_parts() -> None:
    assert devices(1, 9).bounds(Grid(1, 2), ["p1"]) == [0, 1, 6]
    with pytest.raises(ConfigError, match=r"no part of that name \(cut: 'conv'\); there are: p0, p1"):
        devices(1, 9).bounds(Grid(1, 2), ["conv"])


@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(1, 4), Grid(3, 3)])
def test_another_number_of_devices_than_units_is_refused(grid: Grid) -> None:
    said = rf"\(devices: 3, groups: {grid.groups}, stages: {grid.stages}\); .* groups x stages = 3"
    for cuts in (None, ["p1"] * (grid.stages - 1)):
        with pytest.raises(ConfigError, match=said):
            devices(1, 1, 1).bounds(grid, cuts)


def test_more_stages_than_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fewer parts than stages \(parts: 2, stages: 3\)"):
        devices(1, 1, 1, parts=2).bounds(Grid(1, 3))


@settings(deadline=None, max_examples=40)
@given(data=st.data(), groups=st.integers(1, 2), stages=st.integers(1, 3), parts=st.integers(3, 6))
def test_the_clock_finds_no_faster_cut(data: st.DataObject, groups: int, stages: int, parts: int) -> None:
    grid, units = Grid(groups, stages), groups * stages
    whole = st.integers(0, 9)
    # What crosses a cut is one activation and its gradient, of as many bytes.
    sizes = [0, *(1000 * data.draw(whole) for _ in range(parts - 1)), 0]
    columns = [
        CostTable(
            8,
            tuple(
                Cost(
                    forward=data.draw(whole),
                    backward=data.draw(whole),
                    update=data.draw(whole),
                    input=sizes[i],
                    output=sizes[i + 1],
                    name=str(i),
                )
                for i in range(parts)
            ),
            float(data.draw(st.integers(0, 2)) * 500),
        )
        for _ in range(units)
    ]
    hosts = tuple(data.draw(st.sampled_from("ab")) for _ in range(units))
    # From 1 ms a kB on.
    links = {way: Link(0.0, data.draw(st.sampled_from([2.0, 4.0, 8.0]))) for way in WAYS} if len(set(hosts)) > 1 else {}
    table = DeviceTable(tuple(columns), hosts, links)

    def batch(bounds: list[int]) -> float:
        made = table.joined(bounds)
        program = Program(grid, stale([12 * (stages - 1 - k) for k in range(stages)]), 160, NoLateral())
        model = TimeModel(
            made.parts, 1, made.handling, message_bytes(made.parts, program), Disturbances(), unequal=made
        )
        return estimate(program, model).batch

    found = batch(table.bounds(grid))
    others = [batch([0, *cuts, parts]) for cuts in combinations(range(1, parts), stages - 1)]
    assert found <= min(others) + 1e-6


def test_a_typical_device_takes_the_mean_and_what_is_the_models_stays() -> None:
    first = Cost(
        forward=1, backward=2, recompute=5, update=4, fixed=0.5, mix=8, input=1, output=2, parameters=3, name="a"
    )
    second = replace(first, forward=3, backward=6, recompute=None, update=0, fixed=1.5, mix=2)
    made = DeviceTable((CostTable(8, (first,), 0.5), CostTable(8, (second,), 1.5)), ("a", "a"))
    (mean,) = made.parts
    assert mean == replace(first, forward=2, backward=4, recompute=4, update=2, fixed=1, mix=5)
    assert (made.handling, made.batch_size, made.named) == (1.0, 8, True)


def test_another_batch_and_stages_are_those_of_every_column() -> None:
    made = devices(1, 2).of_batch(16)
    assert made.batch_size == 16
    assert [c.parts[0].forward for c in made.columns] == [2, 4]
    made = devices(1, 2).joined([0, 4, 6])
    assert [[part.forward for part in c.parts] for c in made.columns] == [[4, 2], [8, 4]]


def test_a_unit_has_its_own_pace_handling_and_links() -> None:
    hosts = ("a", "a", "b", "b")
    table = DeviceTable(tuple(column(t, 2, h) for t, h in ((1, 0), (2, 1), (3, 2), (4, 3))), hosts, WAYS)
    model = TimeModel(table.parts, 1, table.handling, lambda edge: 0, Disturbances(), unequal=table)
    units = list(Grid(2, 2))
    assert [model.pace(unit).of(Kind.FORWARD) for unit in units] == [1_000_000, 2_000_000, 3_000_000, 4_000_000]
    assert [model.handled(unit, 1_000_000) for unit in units] == [0, 1_000_000, 2_000_000, 3_000_000]
    assert table.link(Unit(0, 0), Unit(0, 1)) == Link()
    assert table.link(Unit(0, 1), Unit(1, 1)) == WAYS["a", "b"]
    assert table.link(Unit(1, 0), Unit(0, 0)) == WAYS["b", "a"]


def test_virtual_time_is_that_of_each_units_own_device() -> None:
    grid = Grid(1, 2)
    program = Program(grid, stale([4, 0]), 60)

    def batch(table: DeviceTable) -> float:
        model = TimeModel(table.parts, 1, 0.0, message_bytes(table.parts, program), Disturbances(), unequal=table)
        return estimate(program, model).batch

    assert batch(devices(1, 2).joined([0, 3, 6])) == 18  # three parts of 6 ms
    assert batch(devices(1, 2).joined([0, 4, 6])) == 12


def test_a_written_table_reads_back_equal_a_line_a_part(tmp_path: Path) -> None:
    first = Cost(forward=0.1, backward=1e-7, recompute=0.3, update=1 / 3, parameters=1 << 40, name="yes: [no]")
    second = replace(first, forward=7, recompute=None, mix=2.5)
    rest = Cost(forward=1, backward=2, tied={"embed.weight": 48}, name="fc")
    hosts = ("host: 1", "b 10.0.0.2")
    links = {hosts: Link(1 / 3, 98.5), hosts[::-1]: Link(0.25)}
    made = DeviceTable((CostTable(32, (first, rest), 0.45), CostTable(32, (second, rest))), hosts, links)
    path = tmp_path / "costs.yaml"
    made.write(path)
    assert read_costs(path) == made
    assert read_yaml(path) == made.plain()
    assert parse_costs(made.plain()) == made
    assert len(path.read_text().splitlines()) == 7


def test_a_time_may_be_one_for_all_devices(tmp_path: Path) -> None:
    (tmp_path / "costs.yaml").write_text(
        "batch_size: 8\nhandling: 0.5\ndevices: [a, b]\nlinks: {a > b: [1, 100], b>a: [2, 50]}\n"
        "parts: [{forward: [1, 2], backward: 3, output: 7}]"
    )
    parts = (Cost(forward=1, backward=3, output=7, name="0"), Cost(forward=2, backward=3, output=7, name="0"))
    columns = tuple(CostTable(8, (part,), 0.5) for part in parts)
    assert read_costs(tmp_path / "costs.yaml") == DeviceTable(columns, ("a", "b"), WAYS)


def test_a_table_of_one_device_is_read_too(tmp_path: Path) -> None:
    column(1).write(tmp_path / "costs.yaml")
    assert read_costs(tmp_path / "costs.yaml") == column(1)


PART = "parts: [{forward: 1, backward: 1}]"
BAD = {
    "none": (f"devices: []\n{PART}", "the name of each one's host (devices: [])"),
    "number": (f"devices: 2\n{PART}", "the name of each one's host (devices: 2)"),
    "host-number": (f"devices: [1, 2]\n{PART}", "the name of each one's host (devices: [1, 2])"),
    "unknown": (f"devices: [a]\nhosts: [a]\n{PART}", "and no others"),
    "no-parts": ("devices: [a]", "parts is a list of entries"),
    "few": ("devices: [a, a]\nparts: [{forward: [1], backward: 1}]", "(forward: 1 numbers, devices: 2)"),
    "many": ("devices: [a, a]\nparts: [{forward: 1, mix: [1, 2, 3], backward: 1}]", "(mix: 3 numbers, devices: 2)"),
    "handling": (f"devices: [a, a]\nhandling: [1, 2, 3]\n{PART}", "(handling: 3 numbers, devices: 2)"),
    "bytes": ("devices: [a, a]\nparts: [{forward: 1, backward: 1, output: [1, 2]}]", "0 or more (output: [1, 2]"),
    "negative": ("devices: [a, a]\nparts: [{forward: [1, -2], backward: 1}]", "0 or more (forward: -2"),
    "word": ("devices: [a, a]\nparts: [{forward: [1, x], backward: 1}]", "0 or more (forward: 'x'"),
    "no-link": (f"devices: [a, b, a]\n{PART}", "how hosts are linked (missing: a > b; b > a)"),
    "half-a-link": (f"devices: [a, b]\nlinks: {{a > b: [1]}}\n{PART}", "how hosts are linked (missing: b > a)"),
    "other-host": (f"devices: [a]\nlinks: {{a > c: [1]}}\n{PART}", "no two hosts of it (links: a > c, hosts: a)"),
    "links-list": (f"devices: [a]\nlinks: [1]\n{PART}", "a way to each line, such as 'a > b: [1, 100]' (links: [1])"),
    "way": (f"devices: [a, b]\nlinks: {{a to b: [1]}}\n{PART}", "in ms and Mbit/s (link: 'a to b', numbers: [1])"),
    "link-number": (f"devices: [a, b]\nlinks: {{a > b: 1}}\n{PART}", "in ms and Mbit/s (link: 'a > b', numbers: 1)"),
    "link-word": (f"devices: [a, b]\nlinks: {{a > b: [x]}}\n{PART}", "(link: 'a > b', numbers: ['x'])"),
    "link-long": (f"devices: [a, b]\nlinks: {{a > b: [1, 2, 3]}}\n{PART}", "in ms and Mbit/s (link: [1, 2, 3])"),
    "link-none": (f"devices: [a, b]\nlinks: {{a > b: [1, 0]}}\n{PART}", "above 0 Mbit/s (latency: 1, bandwidth: 0)"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_name_and_what_is_wrong(tmp_path: Path, case: str) -> None:
    text, said = BAD[case]
    path = tmp_path / "costs.yaml"
    path.write_text(f"batch_size: 1\n{text}")
    with pytest.raises(ConfigError) as refused:
        read_costs(path)
    assert said in str(refused.value)
    assert f"(costs: {path})" in str(refused.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(column(1), batch_size=4), r"different batches \(devices: 0, 1, batch_size: \(8, 4\)\)"),
        (column(1, parts=5), r"different models \(devices: 0, 1, part: '5 parts in place of 6'\)"),
        (column(1, nbytes=5), r"different models \(devices: 0, 1, part: 'p0'\); profile the same model"),
    ],
)
def test_columns_of_other_models_or_batches_are_refused(other: CostTable, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DeviceTable((column(2), other), ("a", "a"))


def test_each_column_has_a_host() -> None:
    for hosts in ((), ("a",)):
        with pytest.raises(ConfigError, match=re.escape(f"(columns: 2, hosts: {len(hosts)})")):
            DeviceTable((column(1), column(1)), hosts)
    with pytest.raises(ConfigError, match=r"\(columns: 0, hosts: 0\)"):
        DeviceTable((), ())
