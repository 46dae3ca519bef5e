import math

import pytest

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.named import CORRECTIONS, RULES, Update, makers, ruled
from stalegrid.stages.corrections.staleness import ExponentialStaleness, InverseStaleness, PipeMareRate, StabilityRate
from tests.sites import make_site


@pytest.mark.parametrize(("tau", "factor"), [(0, 1.0), (1, 1.0), (2, 0.5), (3, 1 / 3), (8, 0.125)])
def test_the_rate_over_the_staleness(tau: int, factor: float) -> None:
    for index in (0, 5, 1000):
        assert InverseStaleness(make_site()).rate(Update(index, tau, None)) == factor


@pytest.mark.parametrize("tau", [2, 3, 6])
def test_pipemares_rate_anneals_from_the_inverse_staleness_to_the_schedules_own(tau: int) -> None:
    correction = PipeMareRate(make_site(), 10.0)
    factors = [correction.rate(Update(n, tau, None)) for n in range(25)]
    assert factors == [tau ** -(1 - min(n / 10.0, 1.0)) for n in range(25)]
    assert factors[0] == 1 / tau
    assert factors[5] == pytest.approx(1 / tau**0.5, rel=1e-15)
    assert factors[10:] == [1.0] * 15
    assert factors == sorted(factors)


@pytest.mark.parametrize("tau", [0, 1])
def test_without_staleness_pipemares_rate_is_the_schedules_own(tau: int) -> None:
    correction = PipeMareRate(make_site(), 10.0)
    assert [correction.rate(Update(n, tau, None)) for n in range(12)] == [1.0] * 12


@pytest.mark.parametrize(("updates", "anneal"), [(40, 10.0), (10, 2.5), (4, 1.0), (1, 1.0)])
def test_unless_told_it_anneals_over_a_quarter_of_the_run_and_at_least_an_update(updates: int, anneal: float) -> None:
    site = make_site(updates=updates)
    left_out, told = PipeMareRate(site), PipeMareRate(site, anneal)
    for n in range(updates):
        assert left_out.rate(Update(n, 3, None)) == told.rate(Update(n, 3, None))
    assert left_out.rate(Update(0, 3, None)) == 1 / 3


@pytest.mark.parametrize(("tau", "limit"), [(0, 2.0), (1, 1.0), (2, 0.618034), (4, 0.347296), (6, 0.241073)])
def test_the_rate_is_the_same_share_of_the_limit_as_without_staleness(tau: int, limit: float) -> None:
    for index in (0, 5, 1000):
        assert StabilityRate(make_site()).rate(Update(index, tau, None)) == pytest.approx(limit / 2, rel=1e-5)
    assert StabilityRate(make_site()).rate(Update(3, 0, None)) == 1.0, "to the bit"


@pytest.mark.parametrize("tau", [0, 1, 2, 5, 8])
@pytest.mark.parametrize(("share", "stable"), [(0.98, True), (1.02, False)])
def test_descent_that_is_so_late_is_stable_up_to_that_rate_and_no_further(tau: int, share: float, stable: bool) -> None:
    rate = 2 * share * StabilityRate(make_site()).rate(Update(0, tau, None))
    w = [1.0] * (tau + 1)
    for _ in range(10_000):
        w.append(w[-1] - rate * w[-1 - tau])
    assert (max(map(abs, w[-100:])) < 1e-3) == stable
    assert stable or max(map(abs, w[-100:])) > 1e3


@pytest.mark.parametrize(
    ("beta", "tau", "factor"),
    [
        (0.5, 0, 1.0),
        (0.5, 1, 0.6065306597126334),
        (0.5, 4, 0.1353352832366127),
        (math.log(2), 3, 0.125),
        (1.0, 10, 4.5399929762484854e-05),
        (0.0, 7, 1.0),
    ],
)
def test_the_exponential_penalty(beta: float, tau: int, factor: float) -> None:
    for index in (0, 5, 1000):
        assert ExponentialStaleness(make_site(), beta).rate(Update(index, tau, None)) == pytest.approx(
            factor, rel=1e-15
        )


def test_unless_told_an_update_of_staleness_costs_a_tenth_in_the_exponent() -> None:
    left_out, told = ExponentialStaleness(make_site()), ExponentialStaleness(make_site(), 0.1)
    for tau in range(5):
        assert left_out.rate(Update(3, tau, None)) == told.rate(Update(3, tau, None)) == math.exp(-0.1 * tau)


@pytest.mark.parametrize("beta", [-1e-9, -1.0])
def test_a_negative_penalty_is_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match=rf"a beta of 0 or more \(exponential-staleness={beta}\)"):
        ExponentialStaleness(make_site(), beta)


@pytest.mark.parametrize(
    ("rule", "texts"),
    [
        ("constant", ["none"]),
        ("inverse", ["inverse-staleness"]),
        ("exponential", ["exponential-staleness"]),
        ("exponential=0.25", ["exponential-staleness=0.25"]),
        ("dc", ["dc-asgd"]),
        ("dc=2", ["dc-asgd=2"]),
        (" gap ", ["gap-aware"]),
    ],
)
def test_a_rule_is_a_correction_with_its_number(rule: str, texts: list[str]) -> None:
    assert ruled(rule) == texts
    made = [make(make_site()) for make in makers(ruled(rule))]
    names = [text.partition("=")[0] for text in texts if text != "none"]
    assert [type(correction) for correction in made] == [CORRECTIONS[name] for name in names]


def test_every_rule_has_a_correction_of_its_own() -> None:
    assert len(set(RULES.values())) == len(RULES)
    for rule in RULES:
        assert len(makers(ruled(rule))) == (rule != "constant")


@pytest.mark.parametrize("rule", ["", "linear", "Inverse", "dc-asgd", "none", "inverse-staleness", "constant=1", "=2"])
def test_a_rule_that_is_none_is_refused_with_those_there_are(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown rule.*constant, inverse, exponential, dc, gap") as caught:
        ruled(rule)
    assert f"(method.rule: {rule!r})" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("inverse=2", "inverse-staleness takes no number"),
        ("gap=", "gap-aware takes no number"),
        ("dc=", "dc-asgd takes a number"),
        ("exponential=much", "exponential-staleness takes a number"),
        ("exponential=inf", "exponential-staleness takes a finite number"),
        ("dc=nan", "dc-asgd takes a finite number"),
    ],
)
def test_a_rule_with_a_wrong_number_is_refused_as_its_correction_is(rule: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        makers(ruled(rule))
