import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.methods.choose import find_grid, schedule
from stalegrid.planner.planning import (
    USUAL,
    WORTH,
    Candidate,
    Question,
    candidates,
    fitting,
    recommend,
    shortened,
)
from stalegrid.programs.grid import Grid
from stalegrid.programs.schedules import Schedule, gpipe, stale
from stalegrid.timing.columns import DeviceTable
from stalegrid.timing.costs import Cost, CostTable
from stalegrid.timing.estimating import Estimate
from tests.cases import flat

BATCH = 32


def table(parts: int = 4, batch_size: int = BATCH) -> CostTable:
    """Equal parts without updates, exchanges or anything fixed."""
    costs = [
        Cost(forward=1, backward=2, name=f"p{i}", input=64, output=64, parameters=1000, graph=3200)
        for i in range(parts)
    ]
    return CostTable(batch_size, tuple(costs))


@cache
def planned(devices: int, names: tuple[str, ...] = USUAL, parts: int = 4, **asked: Any) -> tuple[Candidate, ...]:
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    settings = flat(Settings, **({"batch_size": BATCH} | lists))
    return tuple(candidates(Question(table(parts), devices, names), settings))


def shapes(found: tuple[Candidate, ...]) -> dict[str, set[tuple[int, int]]]:
    made: dict[str, set[tuple[int, int]]] = {}
    for c in found:
        made.setdefault(c.settings.method.name, set()).add((c.grid.groups, c.grid.stages))
    return made


def test_every_shape_that_uses_the_devices_is_tried_with_what_runs_on_it() -> None:
    assert shapes(planned(4)) == {
        "data-parallel": {(4, 1)},
        "gpipe": {(2, 2), (1, 4)},
        "1f1b": {(2, 2), (1, 4)},
        "pipedream": {(1, 4)},
        "dsp": {(1, 4)},
        "pham-ahn": {(4, 1), (2, 2), (1, 4)},
    }
    assert shapes(planned(6, ("1f1b",), micro_batches=4)) == {"1f1b": {(3, 2), (2, 3)}}  # there are four parts only


def test_one_device_trains_whole_models_without_pipelines() -> None:
    assert shapes(planned(1)) == {"sgd": {(1, 1)}, "data-parallel": {(1, 1)}}


def test_a_method_that_says_nothing_of_groups_trains_several_where_a_mixing_is_named() -> None:
    assert shapes(planned(4, ("pipedream",), mixing="all-reduce")) == {"pipedream": {(4, 1), (2, 2), (1, 4)}}


def test_shape_and_staleness_that_are_given_are_kept() -> None:
    assert shapes(planned(4, stages=2)).keys() == {"gpipe", "1f1b", "pham-ahn"}
    assert {c.grid for c in planned(4, stages=2)} == {Grid(2, 2)}
    assert {c.grid for c in planned(4, groups=4)} == {Grid(4, 1)}
    found = planned(4, ("pham-ahn", "gpipe"), staleness=(3, 1))
    assert {(c.settings.method.name, c.grid, c.schedule.windows) for c in found if not c.synchronous} == {
        ("pham-ahn", Grid(2, 2), (4, 2))
    }


def test_queues_and_cuts_are_kept_where_they_have_as_many_entries_as_stages() -> None:
    (found,) = planned(4, ("pham-ahn",), queues=(1, 0))
    assert (found.grid, found.schedule.windows) == (Grid(2, 2), (3, 1))
    assert found.settings.method.queues is None
    assert found.settings.method.staleness == [2, 0]
    assert {c.cuts for c in planned(4, ("pham-ahn",), cuts=("p1",))} == {("p1",)}


def test_a_stale_method_is_tried_at_its_own_staleness_and_at_what_is_enough() -> None:
    found = planned(2, ("pham-ahn",), link=(5.0,), groups=1)
    assert [c.staleness for c in found] == [(3, 0), (2, 0)]
    (found_once,) = planned(2, ("pipedream",))  # both are the same
    assert found_once.staleness == (1, 0)
    (enough,) = planned(2, ("pham-ahn",), link=(5.0,), groups=1, staleness="auto")
    assert enough.staleness == (3, 0)


def test_of_a_method_that_flushes_the_best_number_of_micro_batches_is_kept() -> None:
    assert [c.schedule.micro_batches for c in planned(2, ("gpipe",))] == [8]
    assert [c.schedule.micro_batches for c in planned(2, ("1f1b",), link=(5.0,))] == [2]
    assert [c.schedule.micro_batches for c in planned(2, ("gpipe",), micro_batches=16)] == [16]


def test_micro_batches_divide_the_batch() -> None:
    settings = flat(Settings, batch_size=12)
    (found,) = candidates(Question(table(4, 12), 2, ("gpipe",)), settings)
    assert found.schedule.micro_batches == 6  # of 2, 3, 4 and 6


def test_there_are_as_many_micro_batches_as_stages_where_the_batch_is_large_enough() -> None:
    dear = CostTable(
        8, (Cost(forward=1, backward=2, fixed=9, name="a"), Cost(forward=1, backward=2, fixed=9, name="b"))
    )
    (found,) = candidates(Question(dear, 2, ("gpipe",)), flat(Settings, batch_size=8))
    assert found.schedule.micro_batches == 2  # though one would take less time
    (small,) = candidates(Question(table(4, 2), 4, ("gpipe",)), flat(Settings, batch_size=2, groups=1))
    assert small.schedule.micro_batches == 2


def test_staleness_that_takes_long_to_fill_is_estimated_for_longer() -> None:
    (found,) = planned(2, ("pipedream",), staleness=(150, 0), slow="0,0=3.0")
    assert found.estimate.batch == 18.0


def test_candidates_come_fastest_first_and_samples_are_those_of_all_groups() -> None:
    found = planned(4)
    rates = [c.samples_per_second for c in found]
    assert rates == sorted(rates, reverse=True)
    for c in found:
        assert c.samples_per_second == pytest.approx(1000 * c.grid.groups * BATCH / c.estimate.batch)
    by_shape = {(c.settings.method.name, c.grid.stages): c for c in found}
    # Four parts of 3 ms: 12 ms for a model on each of four devices; 3 ms for a pipeline of four that is always full.
    assert by_shape["data-parallel", 1].estimate.batch == 12.0
    assert by_shape["pipedream", 4].estimate.batch == 3.0
    assert by_shape["data-parallel", 1].samples_per_second == pytest.approx(4 * 32 / 0.012)
    # (M + K - 1) / M of 6 ms, and of 3 ms.
    assert by_shape["gpipe", 2].estimate.batch == pytest.approx(6 * 9 / 8)
    assert by_shape["gpipe", 4].estimate.batch == pytest.approx(3 * 19 / 16)


def test_settings_of_a_candidate_say_what_it_is() -> None:
    for c in planned(4):
        s = c.settings
        assert (s.grid.groups, s.grid.stages, s.method.queues) == (c.grid.groups, c.grid.stages, None)
        method = find_grid(s.method.name)
        assert s.method.micro_batches == c.schedule.micro_batches
        assert tuple(s.grid.cuts or ()) == c.cuts
        assert len(c.cuts) == c.grid.stages - 1
        assert s.method.staleness == ([w - 1 for w in c.schedule.windows] if method.stale else None)
        assert s.mixing.kind == (method.mixing if c.grid.groups > 1 else "none")
        assert schedule(method, c.grid.stages, s.method.staleness, None, s.method.micro_batches) == c.schedule
    assert {c.cuts for c in planned(4) if c.grid.stages == 2} == {("p2",)}


def test_memory_is_parameters_gradients_states_graphs_inputs_and_copies() -> None:
    by_method = {(c.settings.method.name, c.staleness): c for c in planned(4, link=(3.0,), groups=1)}
    # Stashed: m + 1 graphs and m copies; parameters, gradients and one vector of the optimizer.
    pipedream = by_method["pipedream", (3, 2, 1, 0)]
    assert pipedream.memory == tuple(3 * 1000 + (m + 1) * 3200 + m * 1000 for m in (3, 2, 1, 0))
    # Recomputed: one graph, and the inputs of m more.
    dsp = by_method["dsp", (6, 4, 2, 0)]
    assert dsp.memory == tuple(3 * 1000 + 3200 + m * 64 for m in (6, 4, 2, 0))
    # A window of micro-batches.
    (gpipe_,) = planned(2, ("gpipe",), micro_batches=8)
    assert gpipe_.memory == (6000 + 6400,) * 2
    (one_f,) = planned(2, ("1f1b",), micro_batches=8)
    assert one_f.memory == (6000 + 2 * 6400 // 8, 6000 + 6400 // 8)


def test_what_lies_below_all_that_is_trained_holds_nothing_of_a_batch() -> None:
    below = [replace(part, backward=0, graph=0, frozen=True) for part in table(3).parts]
    whole = CostTable(BATCH, (*below, Cost(forward=1, backward=2, name="p3", input=64, parameters=1000, graph=3200)))
    asked = flat(Settings, batch_size=BATCH, staleness=[4, 0])
    (found,) = candidates(Question(whole, 2, ("dsp",)), asked)
    assert found.cuts == ("p3",)
    assert found.memory == (3 * 3000, 3 * 1000 + 3200)
    assert found.estimate.batch == 3, "of three forwards each update, and no second ones"


def test_a_mirror_takes_memory_for_each_version_that_batches_in_flight_were_forwarded_at() -> None:
    shared = {"w": 400}
    parts = [replace(part, tied=shared if i in (0, 3) else {}) for i, part in enumerate(table().parts)]
    asked = flat(Settings, batch_size=BATCH, staleness=[3, 2, 2, 1])
    one, other = (
        candidates(Question(CostTable(BATCH, tuple(of)), 4, ("pipedream",)), asked)[0] for of in (parts, table().parts)
    )
    assert [a - b for a, b in zip(one.memory, other.memory, strict=True)] == [0, 0, 0, (2 + 1) * 400]


def test_an_optimizer_with_more_states_takes_more_memory() -> None:
    settings = flat(Settings, batch_size=BATCH)
    one, two = (candidates(Question(table(), 1, ("sgd",), states=n), settings)[0].memory[0] for n in (1, 2))
    assert two - one == 4000


def test_a_mixing_that_remembers_takes_memory_for_what_it_keeps() -> None:
    one, other = (planned(2, ("pham-ahn",), groups=2, mixing=kind) for kind in ("adapt-then-combine", "outer"))
    assert [b.memory[0] - a.memory[0] for a, b in zip(one, other, strict=True)] == [3 * 4000] * len(one)


def test_rare_mixing_costs_its_share_of_every_update() -> None:
    # Three seconds to each other every 300 updates, which are more than an estimate has otherwise.
    asked: dict[str, Any] = {"groups": 2, "mixing": "adapt-then-combine", "period": 300, "lateral_link": (3000.0,)}
    assert {c.estimate.batch for c in planned(2, ("pham-ahn",), **asked)} == {12.0 + 3000.0 / 300}


def test_what_is_sparse_sends_a_share_of_the_parameters_and_takes_a_share_of_the_time() -> None:
    # 4,000 bytes at 1 Mbit/s are 32 ms; one of four parts is a quarter of each of its tensors.
    asked: dict[str, Any] = {"groups": 2, "mixing": "adapt-then-combine", "lateral_link": (0.0, 1.0)}
    (whole, *_), (part, *_) = (planned(2, ("pham-ahn",), **asked, sparse=p) for p in (1.0, 0.25))
    assert (whole.sent["parameters"], part.sent["parameters"]) == (2 * 4000, 2 * 1000)
    assert (whole.estimate.batch, part.estimate.batch) == (12.0 + 32.0, 12.0 + 8.0)


def test_mixings_send_what_they_say() -> None:
    kinds = {"noloco,rate=0.7": 2, "gradient-tracking": 2, "exact-diffusion": 1}
    for kind, vectors in kinds.items():
        (found, *_) = planned(2, ("pham-ahn",), groups=2, mixing=kind)
        assert sum(found.sent.values()) == pytest.approx(2 * vectors * 4000, rel=0.01)


FED = replace(find_grid("pipedream"), name="fed", corrections=("error-feedback=0.5",))


def test_what_a_methods_corrections_keep_takes_memory() -> None:
    settings = flat(Settings, batch_size=BATCH, groups=1, staleness=[3, 2, 1, 0])
    names = ("pipedream", "tests.planner.test_planning:FED")
    (one,), (two,) = (candidates(Question(table(), 4, (name,)), settings) for name in names)
    assert [b - a for a, b in zip(one.memory, two.memory, strict=True)] == [1000] * 4


def test_slow_links_and_the_view_are_those_asked_for() -> None:
    near, far = planned(2, ("gpipe",), micro_batches=2), planned(2, ("gpipe",), micro_batches=2, link=(5.0,))
    # Two micro-batches through two stages: two ways of 5 ms longer.
    assert far[0].estimate.batch - near[0].estimate.batch == pytest.approx(10.0)
    viewed = planned(2, ("pipedream",), view="recomputed")
    assert viewed[0].estimate.batch > planned(2, ("pipedream",))[0].estimate.batch
    assert viewed[0].settings.method.view == "recomputed"


def test_handling_of_the_table_counts() -> None:
    settings = flat(Settings, batch_size=BATCH, staleness=[0, 0])
    # 64 B each way at 1 ms a kB, for both ends.
    found = candidates(Question(replace(table(), handling=1000.0), 2, ("pipedream",)), settings)
    assert found[0].estimate.batch == pytest.approx(12 + 4 * 0.064)


def test_where_costs_are_equal_and_nothing_is_lost_synchronous_training_is_recommended() -> None:
    for devices in (1, 2, 4):
        best, why = recommend(planned(devices), 0.02)
        assert best.synchronous
        assert best.settings.method.name == ("sgd" if devices == 1 else "data-parallel")
        assert why.startswith("the fastest; nothing stale" if devices == 1 else "synchronous training is better here")


def test_where_links_are_slow_the_least_stale_of_the_fast_is_recommended() -> None:
    best, why = recommend(planned(4, groups=1, link=(3.0,)), 0.02)
    assert (best.settings.method.name, best.staleness) == ("pipedream", (9, 6, 3, 0))
    exact = next(c for c in planned(4, groups=1, link=(3.0,)) if c.synchronous)
    gain = best.samples_per_second / exact.samples_per_second
    assert gain > 5
    assert why == (
        f"{gain:.2f} times as fast as the best synchronous method (gpipe on 1 x 4), and the least stale of what is "
        "within 2% of the fastest"
    )


def made(rate: float, method: str, windows: tuple[int, ...] = (1,), memory: int = 1, micro: int = 1) -> Candidate:
    schedule = Schedule(windows, micro) if find_grid(method).stale else gpipe(len(windows), micro)
    times = Estimate(batch=1000 / rate, total=1.0, busy=1.0, sending=0.0, actions=1, updated=(1.0,))
    settings = flat(Settings, method=method, groups=1, stages=len(windows))
    return Candidate(settings, Grid(1, len(windows)), schedule, (), times, (memory,) * len(windows), rate, {})


def test_staleness_must_be_worth_it() -> None:
    exact = made(100, "gpipe", (1, 1))
    for rate, faster in ((100 * WORTH + 1, True), (100 * WORTH - 1, False)):
        fast = made(rate, "pipedream", (2, 1))
        best, why = recommend([fast, exact], 0.02)
        assert best is (fast if faster else exact)
        assert ("times as fast" in why) is faster
    assert "only 9% faster (worth it from 10%)" in why


def test_what_is_about_as_fast_and_less_stale_or_smaller_is_preferred() -> None:
    fastest = made(1000, "pham-ahn", (7, 4, 1))
    less = made(985, "pipedream", (3, 2, 1), memory=9)
    small = made(981, "dsp", (3, 2, 1), memory=5)
    slow = made(975, "ddg", (2, 1, 1))
    exact = made(10, "gpipe", (1, 1, 1))
    found = [fastest, less, small, slow, exact]
    assert recommend(found, 0.02)[0] is small
    assert recommend(found, 0.016)[0] is less
    assert recommend(found, 0.0)[0] is fastest
    assert recommend(found, 0.05)[0] is slow
    assert recommend(found, 0.995)[0] is exact


def test_what_is_synchronous_and_within_the_share_is_preferred_to_groups_that_drift() -> None:
    found = [made(115, "pham-ahn"), made(100, "data-parallel")]
    assert recommend(found, 0.2)[0] is found[1]
    assert recommend(found, 0.02)[0] is found[0]


def test_staleness_is_counted_in_updates() -> None:
    batches = made(100, "pipedream", (5, 1))
    updates = made(100, "paci", (9, 1), micro=8)
    assert (batches.staleness, updates.staleness) == ((4, 0), (1, 0))
    assert recommend([batches, updates, made(1, "gpipe", (1, 1))], 0.02)[0] is updates


def test_where_nothing_synchronous_fits_the_least_stale_is_recommended_without_a_comparison() -> None:
    best, why = recommend([made(100, "pham-ahn", (3, 1)), made(99, "pipedream", (2, 1))], 0.02)
    assert best.settings.method.name == "pipedream"
    assert why.startswith("nothing synchronous was compared or fits")


def test_the_fastest_synchronous_one_is_recommended_where_synchronous_is_better() -> None:
    found = [made(100, "gpipe", (1, 1), memory=9), made(99, "1f1b", (1, 1), memory=1)]
    assert recommend(found, 0.02)[0] is found[0]


def test_only_what_has_room_fits() -> None:
    small, large = made(1, "pipedream", (2, 1), memory=10), made(2, "pham-ahn", (3, 1), memory=11)
    assert fitting([large, small], None) == [large, small]
    assert fitting([large, small], 11) == [large, small]
    assert fitting([large, small], 10) == [small]
    uneven = replace(small, memory=(3, 12))
    assert fitting([uneven, small], 11) == [small]
    with pytest.raises(ConfigError, match=r"\(memory: 9 bytes, the least that any needs: 10\); use more stages"):
        fitting([large, small, uneven], 9)


def test_the_fastest_of_each_method_and_the_recommended_one_are_shown() -> None:
    found = [
        made(9, "pham-ahn", (5, 1)),
        made(8, "pipedream", (3, 1)),
        made(7, "pham-ahn", (3, 1)),
        made(6, "pham-ahn"),
    ]
    assert shortened(found, found[2]) == found[:3]
    assert shortened(found, found[1]) == found[:2]


@pytest.mark.parametrize("devices", [0, -2])
def test_a_plan_is_for_at_least_one_device(devices: int) -> None:
    with pytest.raises(ConfigError, match=rf"at least one device \(devices: {devices}\)"):
        Question(table(), devices)


def test_a_device_needs_memory_and_methods_must_exist() -> None:
    with pytest.raises(ConfigError, match=r"needs memory \(memory: 0 bytes\)"):
        Question(table(), 1, memory=0)
    with pytest.raises(ConfigError, match=r"unknown method \(method: 'magic'\)"):
        Question(table(), 1, ("gpipe", "magic"))


BAD: dict[str, tuple[int, tuple[str, ...], dict[str, Any], str]] = {
    "method": (
        4,
        ("sgd",),
        {},
        "no method runs on a grid of these devices (devices: 4, parts of the model: 4, methods: sgd)",
    ),
    "none": (2, (), {}, "nothing to plan"),
    "shape": (4, ("gpipe",), {"stages": 3}, "nothing to plan"),
    "parts": (5, ("gpipe",), {"groups": 1}, "(devices: 5, parts of the model: 4, methods: gpipe)"),
    "length": (4, ("pipedream",), {"staleness": (1, 1, 0)}, "nothing to plan"),
    "increasing": (4, ("pham-ahn",), {"staleness": (0, 2)}, "increases along the stages (staleness: 0,2"),
    "micro": (2, ("gpipe",), {"micro_batches": 0}, "at least one micro-batch (micro-batches: 0)"),
    "within": (2, ("pham-ahn",), {"within": 1.5}, "from 0 to below 1 (within: 1.5)"),
    "link": (2, ("gpipe",), {"link": (-1.0,)}, "(latency: -1.0, bandwidth: inf)"),
    "view": (2, ("pipedream",), {"view": "old"}, "unknown view (view: 'old')"),
    "mixing": (2, ("pham-ahn",), {"mixing": "soup"}, "unknown mixing (mixing: 'soup')"),
    "cuts": (2, ("gpipe",), {"cuts": ("conv",)}, "no part of that name (cut: 'conv')"),
    "unit": (2, ("gpipe",), {"slow": "5,0=2", "stages": 2}, "no such unit (unit: 5,0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_planned_is_refused(case: str) -> None:
    devices, names, asked, said = BAD[case]
    with pytest.raises(ConfigError, match=re.escape(said)):
        planned(devices, names, **asked)


@pytest.mark.parametrize("mixing", ["combine-while-adapt", "none"])
def test_groups_that_drift_apart_are_not_synchronous(mixing: str) -> None:
    (found,) = planned(2, ("data-parallel",), mixing=mixing)
    assert not found.synchronous


def test_a_method_that_does_not_run_on_some_shape_is_left_out() -> None:
    found = planned(8, ("gpipe", "pipedream-2bw"), parts=8, groups=1)  # double-buffered needs M of 7 on eight stages
    assert shapes(found) == {"gpipe": {(1, 8)}}


def test_synchronous_pipelines_are_compared_on_three_stages() -> None:
    assert (1, 3) in shapes(planned(3)).get("gpipe", set())


def test_a_slow_unit_that_some_shape_has_does_not_end_the_plan() -> None:
    assert planned(2, slow="0,1=3.0")


def test_a_slow_device_may_be_named_by_its_number_on_every_shape() -> None:
    found = planned(2, ("pham-ahn",), slow="1=3.0")
    assert {c.grid for c in found} == {Grid(2, 1), Grid(1, 2)}
    # The second group of one device, or the second stage.
    assert {(c.grid, c.estimate.batch) for c in found} == {(Grid(2, 1), 36.0), (Grid(1, 2), 18.0)}
    assert {c.grid for c in planned(2, ("pham-ahn",), slow="0,1=3.0")} == {Grid(1, 2)}


def test_a_stale_schedule_is_the_one_of_its_staleness() -> None:
    (found,) = planned(2, ("pipedream",))
    assert found.schedule == stale([1, 0])


def unequal(*times: int) -> DeviceTable:
    """Return devices of which each takes so many times as long for each of six parts."""
    columns = (
        replace(table(6), parts=tuple(replace(p, forward=t, backward=2 * t) for p in table(6).parts)) for t in times
    )
    return DeviceTable(tuple(columns), ("a",) * len(times))


def test_a_faster_device_is_given_more_parts_and_the_clock_says_what_that_gains() -> None:
    asked = flat(Settings, batch_size=BATCH)
    found = candidates(Question(unequal(1, 2), 2, ("pipedream", "data-parallel")), asked)
    stale_one = next(c for c in found if c.grid == Grid(1, 2))
    assert stale_one.cuts == ("p4",)
    assert stale_one.settings.grid.cuts == ["p4"]
    assert stale_one.estimate.batch == 12
    assert stale_one.gain is not None
    assert (stale_one.gain.cuts, stale_one.gain.alike) == (["p4"], ["p3"])
    assert (stale_one.gain.batch, stale_one.gain.alike_batch) == (12, 18)
    whole = next(c for c in found if c.grid == Grid(2, 1))
    assert whole.gain is None
    assert whole.estimate.batch == 36, "the slower one of the two"


def test_cuts_of_the_user_and_equal_devices_gain_nothing() -> None:
    (kept,) = candidates(
        Question(unequal(1, 2), 2, ("pipedream",)), flat(Settings, batch_size=BATCH, cuts=["p3"], staleness=[1, 0])
    )
    assert (kept.cuts, kept.gain, kept.estimate.batch) == (("p3",), None, 18)
    found = candidates(Question(unequal(2, 2), 2, ("pipedream",)), flat(Settings, batch_size=BATCH))
    assert {c.gain for c in found} == {None}


@pytest.mark.parametrize("devices", [1, 2, 6])
def test_a_plan_is_for_all_devices_of_a_table(devices: int) -> None:
    with pytest.raises(ConfigError, match=rf"all devices of a table \(units: {devices}, devices: 3\)"):
        Question(unequal(1, 2, 3), devices, ("pipedream",))
