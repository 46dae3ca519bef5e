from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import curves, far_loss
from benchmarks.curves import RATES, TARGET, UPDATES, Curve
from benchmarks.far_loss import TIMED, WAYS
from benchmarks.hosts import Host
from benchmarks.measure import Figures
from benchmarks.text import EVALUATED

OURS = [way for way, (kind, *_) in WAYS.items() if kind == "grid"]


def curve(way: str, seed: int, more: float = 0.0) -> Curve:
    """Reaches the loss after two evaluations and one for each seed, unless there is more of it."""
    before = 1 + seed
    return Curve(way, RATES[1], seed, (*[TARGET + 1] * before, *[TARGET + more] * (UPDATES // EVALUATED - before)))


def test_seconds_to_the_loss_are_updates_times_the_median_of_seconds_and_who_did_not_reach_it_is_told() -> None:
    learned = {way: [curve(way, seed, 0.01 * (way == OURS[1] and seed == 1)) for seed in (0, 1)] for way in WAYS}
    seconds: Figures = {way: [1.0 + i, 2.0 + i, 9.0 + i] for i, way in enumerate(WAYS)}
    row = far_loss.row(learned, seconds)
    first = next(iter(WAYS))
    assert row.figures[f"{first}, samples/s"] == [16.0, 8.0, 16 / 9]
    assert row.figures[f"{first}, updates to a loss of {TARGET}"] == [2 * EVALUATED, 3 * EVALUATED]
    assert row.figures[f"{first}, s to a loss of {TARGET}"] == [4 * EVALUATED, 6 * EVALUATED]
    assert f"{OURS[1]}, s to a loss of {TARGET}" not in row.figures
    assert row.figures[f"{OURS[1]}, last test loss"] == [TARGET, TARGET + 0.01]
    assert f"{OURS[1]}: 1 of 2 seeds did not reach {TARGET}" in row.notes
    best = f"{OURS[0]}, s to a loss of {TARGET}"  # the first of them makes updates in the least time here
    assert all(r.what.endswith(f" / {best}") for r in row.ratios)
    assert len(row.ratios) == len(WAYS) - 2
    place = list(WAYS).index(OURS[0])
    assert row.ratios[0].values == pytest.approx([2 / (2 + place)] * 2)


def test_who_computes_the_same_shares_a_curve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextmanager
    def none(*_: float) -> Iterator[list[Host]]:
        yield []

    def on_hosts(network: list[Host], peer: str, *arguments: object) -> dict[str, float]:
        _, _, updates, every, *_ = arguments
        assert updates == 3 * every  # type: ignore[operator]
        return {"seconds": 0.5}

    monkeypatch.setattr(far_loss, "hosts", none)
    monkeypatch.setattr(far_loss, "on_hosts", on_hosts)
    monkeypatch.setattr(
        far_loss.curves, "curves", lambda _, seeds: [curve(way, seed) for way in curves.WAYS for seed in seeds]
    )
    row = far_loss.run(tmp_path, 4)
    for way in WAYS:
        assert row.figures[f"{way}, samples/s"] == [32.0] * 4
        assert row.figures[f"{way}, updates to a loss of {TARGET}"] == [2 * EVALUATED, 3 * EVALUATED, 4 * EVALUATED]


def test_whole_periods_are_timed() -> None:
    for kind, *options in WAYS.values():
        if kind == "local":
            assert TIMED[kind] % int(options[0]) == EVALUATED % int(options[0]) == 0
