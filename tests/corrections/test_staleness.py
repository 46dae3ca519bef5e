import pytest

from stalegrid.corrections import Update
from stalegrid.corrections.staleness import InverseStaleness, PipeMareRate
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
