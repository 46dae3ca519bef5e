import itertools
import math
import re
from statistics import median

import pytest

from stalegrid.errors import ConfigError
from stalegrid.programs.grid import Grid, Unit
from stalegrid.timing.disturbances import Disturbances, Jitter, Outage, parse_outages, parse_slow
from stalegrid.timing.links import Link
from stalegrid.timing.settings import DeviceSettings

UNIT = Unit(0, 1)


def parse(grid: Grid | None = None, seed: int = 0, **written: object) -> Disturbances:
    return Disturbances.parse(DeviceSettings(**written), grid or Grid(2, 3), seed)


def test_nothing_written_is_no_disturbance() -> None:
    assert parse(seed=5) == Disturbances(seed=5)
    assert parse().link == Link(0.0, math.inf)
    assert not parse().jitter


def test_everything_written_is_read() -> None:
    found = parse(
        seed=7,
        slow="1,2=3.5; 0,0=.5",
        jitter=0.25,
        stalls=[0.01, 200.0],
        link=[1.5],
        lateral_link=[2.0, 100.0],
        outages="0,1@1000-3000; 0,1>0,2@1.5-2",
    )
    assert found == Disturbances(
        link=Link(1.5),
        lateral_link=Link(2.0, 100.0),
        jitter=Jitter(0.25, 0.01, 200.0),
        slow={Unit(1, 2): 3.5, Unit(0, 0): 0.5},
        outages=(Outage(Unit(0, 1), None, 1000.0, 3000.0), Outage(Unit(0, 1), Unit(0, 2), 1.5, 2.0)),
        seed=7,
    )


@pytest.mark.parametrize("numbers", [[], [1.0, 2.0, 3.0]])
def test_a_link_is_one_number_or_two(numbers: list[float]) -> None:
    for name in ("link", "lateral_link"):
        with pytest.raises(ConfigError, match=re.escape(f"in ms and Mbit/s (link: {numbers})")):
            parse(**{name: numbers})


@pytest.mark.parametrize("stalls", [[0.5], [0.1, 0.2, 0.3]])
def test_stalls_are_two_numbers(stalls: list[float]) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"SHARE,MILLISECONDS (stalls: {stalls})")):
        parse(stalls=stalls)


@pytest.mark.parametrize(
    "numbers",
    [(-0.1, 0, 0), (math.nan, 0, 0), (math.inf, 0, 0), (0, -0.1, 1), (0, 1.1, 1), (0, 0.5, -1), (0, 0.5, math.inf)],
)
def test_jitter_that_has_no_meaning_is_refused(numbers: tuple[float, float, float]) -> None:
    sigma, share, stall = numbers
    with pytest.raises(ConfigError, match=re.escape(f"(sigma: {sigma}, share: {share}, stall: {stall})")):
        Jitter(sigma, share, stall)
    with pytest.raises(ConfigError, match=r"\(sigma: |devices\.(jitter|stalls) must be .*infinite"):
        parse(jitter=sigma, stalls=[share, stall])


def test_jitter_that_changes_nothing_is_none() -> None:
    assert not Jitter(0.0, 0.5, 0.0)
    assert not Jitter(0.0, 0.0, 5.0)
    assert Jitter(0.1)
    assert Jitter(0.0, 0.5, 1.0)


def factors(jitter: Jitter, count: int, seed: int = 0, unit: Unit = UNIT) -> list[tuple[float, int]]:
    return list(itertools.islice(jitter.draws(seed, unit), count))


def test_draws_are_the_same_for_a_unit_and_seed_and_differ_between_units_and_seeds() -> None:
    jitter = Jitter(0.3, 0.2, 1.0)
    assert factors(jitter, 600) == factors(jitter, 600)
    assert factors(jitter, 600)[:100] == factors(jitter, 100)
    others = [factors(jitter, 300, seed, Unit(s, k)) for seed in (0, 1) for s in (0, 1) for k in (0, 1, 2)]
    for one, other in itertools.combinations(others, 2):
        assert one != other
        assert {f for f, _ in one}.isdisjoint(f for f, _ in other)


def test_the_median_factor_is_1_and_its_logarithm_has_the_asked_deviation() -> None:
    drawn = [factor for factor, _ in factors(Jitter(0.5), 4000)]
    assert min(drawn) > 0
    assert median(drawn) == pytest.approx(1.0, abs=0.05)
    logarithms = [math.log(factor) for factor in drawn]
    assert sum(x * x for x in logarithms) / len(logarithms) == pytest.approx(0.25, abs=0.02)
    assert len(set(drawn)) == len(drawn)


def test_stalls_come_with_their_probability_and_take_their_time() -> None:
    drawn = factors(Jitter(0.0, 0.25, 1.5), 4000)
    assert {factor for factor, _ in drawn} == {1.0}
    assert {stall for _, stall in drawn} == {0, 1_500_000}
    assert sum(stall > 0 for _, stall in drawn) / len(drawn) == pytest.approx(0.25, abs=0.03)
    assert {stall for _, stall in factors(Jitter(0.0, 1.0, 2.0), 300)} == {2_000_000}


def test_slow_units_are_read_with_blanks_and_empty_entries() -> None:
    assert parse_slow(None) == parse_slow("") == parse_slow(" ; ") == {}
    assert parse_slow(" 0 , 1 = 2 ;; 1,0=0.25;") == {Unit(0, 1): 2.0, Unit(1, 0): 0.25}


def test_a_unit_may_be_the_number_of_a_device() -> None:
    assert parse_slow("3=2;1,0=4", stages=2) == {Unit(1, 1): 2.0, Unit(1, 0): 4.0}
    assert parse_slow("3=2", stages=4) == {Unit(0, 3): 2.0}
    assert parse(Grid(2, 3), slow="4=2", outages="4@1-2").outages == (Outage(Unit(1, 1), None, 1.0, 2.0),)
    assert parse_outages("1>2@1-2", stages=3) == (Outage(Unit(0, 1), Unit(0, 2), 1.0, 2.0),)


@pytest.mark.parametrize(
    "text", ["0,1", "0,1=", "0,1,2=2", "0,1=0", "0,1=-2", "0,1=1.2.3", "0,1=.", "0,1=2,3", "a,1=2"]
)
def test_a_slow_unit_that_is_not_written_so_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"several with ; between (slow: {text!r})")):
        parse_slow(f"0,0=2;{text}")


@pytest.mark.parametrize(
    "text",
    ["0,1", "0,1@5", "0,1@5-", "0,@1-2", "0,1>0,@1-2", "0,1>@1-2", "0,1@-1-2", "0,1@1-2-3", "0,1@.-2", "0,1@1-x"],
)
def test_an_outage_that_is_not_written_so_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"between (outage: {text!r})")):
        parse_outages(f"0,0@1-2;{text}")


@pytest.mark.parametrize(("start", "end"), [(5.0, 5.0), (6.0, 5.0), (-1.0, 5.0), (0.0, math.inf), (math.nan, 1.0)])
def test_an_outage_that_does_not_end_after_it_starts_is_refused(start: float, end: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"(outage: {start}-{end})")):
        Outage(UNIT, None, start, end)


def test_an_outage_holds_back_what_is_ready_within_it() -> None:
    outage = Outage(UNIT, None, 1.0, 2.5)
    times = {0: 0, 999_999: 999_999, 1_000_000: 2_500_000, 2_499_999: 2_500_000, 2_500_000: 2_500_000, 3: 3}
    assert {time: outage.after(time) for time in times} == times


def test_outages_are_found_by_their_unit_or_link_in_their_order_in_time() -> None:
    found = parse(outages="0,1@5-6; 0,1@1-2; 0,1>0,2@3-4; 0,2>0,1@7-8")
    assert [o.start for o in found.delays(Unit(0, 1), None)] == [1.0, 5.0]
    assert [o.start for o in found.delays(Unit(0, 1), Unit(0, 2))] == [3.0]
    assert [o.start for o in found.delays(Unit(0, 2), Unit(0, 1))] == [7.0]
    assert found.delays(Unit(0, 2), None) == ()


@pytest.mark.parametrize(
    "written", [{"slow": "2,0=2"}, {"outages": "2,0@1-2"}, {"outages": "2,0>0,0@1-2"}, {"outages": "0,0>2,0@1-2"}]
)
def test_a_unit_that_does_not_exist_is_refused(written: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no such unit \(unit: 2,0, groups: 2, stages: 3\); units are GROUP,STAGE"):
        parse(**written)


def test_groups_and_stages_are_not_mixed_up() -> None:
    assert parse(Grid(1, 3), slow="0,2=2").slow == {Unit(0, 2): 2.0}
    with pytest.raises(ConfigError, match="unit: 2,0"):
        parse(Grid(1, 3), slow="2,0=2")


@pytest.mark.parametrize(("text", "stages"), [("0,1=2;0,1=3", 2), ("1=2;0,1=2", 2), ("2=1.5; 2 = 1.5", 1)])
def test_a_unit_is_slow_once_however_it_is_written(text: str, stages: int) -> None:
    with pytest.raises(ConfigError, match="a unit is slow once"):
        parse_slow(text, stages)
