from pathlib import Path

import pytest

from benchmarks import curves
from benchmarks.curves import MEAN, MORE, RATES, TARGET, UPDATES, WAYS, Curve
from benchmarks.measure import Skipped
from benchmarks.text import EVALUATED

SLOW, FAST, _ = RATES
LATE = "DiLoCo every 40"


def curve(way: str = MEAN, rate: float = FAST, seed: int = 0, updates: int = UPDATES, last: float = TARGET) -> Curve:
    """Has its last loss at the end, and a greater one before."""
    return Curve(way, rate, seed, (*[last + 1] * (updates // EVALUATED - 1), last))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, float, int, int]]:
    """What is trained, in order; the second rate is the best, DiLoCo is late, and the ninth training is broken off."""
    seen: list[tuple[str, float, int, int]] = []

    def train(folder: Path, way: str, rate: float, seed: int, updates: int) -> Curve:
        seen.append((way, rate, seed, updates))
        if len(seen) == 9:
            raise KeyboardInterrupt
        late = way == LATE and updates == UPDATES
        return curve(way, rate, seed, updates, TARGET + 0.1 * (rate != FAST) + 0.1 * late)

    monkeypatch.setattr(curves, "_train", train)
    monkeypatch.setattr(curves, "text", lambda *_: None)
    monkeypatch.setattr(curves, "KEPT", tmp_path / "kept.jsonl")
    with pytest.raises(KeyboardInterrupt):
        curves.curves(tmp_path, range(2))
    return seen


def test_what_was_trained_is_kept_and_the_rest_goes_on(
    trained: list[tuple[str, float, int, int]], tmp_path: Path
) -> None:
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 8
    made = curves.curves(tmp_path, range(2))
    assert trained[8] == trained[9]  # what was not finished is done again, and nothing else
    assert len(set(trained)) == len(trained) - 1 == len(made)
    assert curves.curves(tmp_path, range(2)) == made
    assert len(set(trained)) == len(trained) - 1


def test_rates_are_tried_with_the_first_seed_and_who_is_late_then_is_trained_for_longer(
    trained: list[tuple[str, float, int, int]], tmp_path: Path
) -> None:
    made = curves.curves(tmp_path, range(2))
    for way, (kind, *_) in WAYS.items():
        done = [(r, s, n) for w, r, s, n in dict.fromkeys(trained) if w == way]
        # Messages in fewer bits have the rate of a plain loop.
        tried = RATES if way == MEAN or kind in ("local", "grid") else [FAST]
        more = [(FAST, 0, MORE), (FAST, 1, MORE)] if way == LATE else [(FAST, 1, UPDATES)]
        assert done == [*((rate, 0, UPDATES) for rate in tried), *more]
        assert curves.chosen(made, way, (0, 1)) == [
            curve(way, seed=seed, updates=MORE if way == LATE else UPDATES) for seed in (0, 1)
        ]


def test_updates_to_the_loss_are_on_a_line_between_two_evaluations() -> None:
    assert Curve(MEAN, FAST, 0, (TARGET + 1, TARGET + 0.3, TARGET - 0.1, TARGET + 1)).updates == pytest.approx(
        2.75 * EVALUATED
    )
    assert curve().updates == pytest.approx(UPDATES)
    assert Curve(MEAN, FAST, 0, (TARGET - 0.5,)).updates == EVALUATED
    assert curve(last=TARGET + 0.01).updates is None


def test_the_best_rate_is_the_one_that_is_there_first_or_else_comes_nearest() -> None:
    early = Curve(MEAN, SLOW, 0, (TARGET - 0.1, *[TARGET + 1] * (UPDATES // EVALUATED - 1)))
    late = curve(rate=SLOW, last=TARGET + 2)
    assert curves._best([curve(), early], MEAN) == early
    assert curves._best([late, curve()], MEAN) == curve()
    assert curves._best([late, curve(last=TARGET + 1)], MEAN).rate == FAST
    assert curves._best([curve(last=TARGET + 1), curve(rate=SLOW, updates=MORE)], MEAN).rate == FAST


def test_without_a_text_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match="needs a text"):
        curves.curves(tmp_path, range(1))
