from pathlib import Path

import pytest

from benchmarks import curves
from benchmarks.curves import MEAN, RATES, TARGET, WAYS, Curve
from benchmarks.measure import Skipped
from benchmarks.text import EVALUATED

SLOW, FAST, _ = RATES


def curve(way: str = MEAN, rate: float = FAST, seed: int = 0, last: float = TARGET) -> Curve:
    return Curve(way, rate, seed, (last + 1, last))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, float, int]]:
    """What is trained, in order; the second rate is the best, and the ninth training is broken off."""
    seen: list[tuple[str, float, int]] = []

    def train(folder: Path, way: str, rate: float, seed: int) -> Curve:
        seen.append((way, rate, seed))
        if len(seen) == 9:
            raise KeyboardInterrupt
        return curve(way, rate, seed, TARGET if rate == FAST else TARGET + 0.1)

    monkeypatch.setattr(curves, "_train", train)
    monkeypatch.setattr(curves, "text", lambda *_: None)
    monkeypatch.setattr(curves, "KEPT", tmp_path / "kept.jsonl")
    with pytest.raises(KeyboardInterrupt):
        curves.curves(tmp_path, range(2))
    return seen


def test_what_was_trained_is_kept_and_the_rest_goes_on(trained: list[tuple[str, float, int]], tmp_path: Path) -> None:
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 8
    made = curves.curves(tmp_path, range(2))
    assert trained[8] == trained[9]  # what was not finished is done again, and nothing else
    assert len(set(trained)) == len(trained) - 1 == len(made)
    assert curves.curves(tmp_path, range(2)) == made
    assert len(set(trained)) == len(trained) - 1


def test_rates_are_tried_with_the_first_seed_and_messages_in_fewer_bits_have_those_of_a_plain_loop(
    trained: list[tuple[str, float, int]], tmp_path: Path
) -> None:
    made = curves.curves(tmp_path, range(2))
    for way, (kind, *_) in WAYS.items():
        rates = {seed: [r for w, r, s in dict.fromkeys(trained) if (w, s) == (way, seed)] for seed in (0, 1)}
        tried = way == MEAN or kind in ("local", "grid")
        assert rates == {0: list(RATES) if tried else [FAST], 1: [FAST]}
        assert curves.chosen(made, way, (0, 1)) == [curve(way), curve(way, seed=1)]


def test_updates_to_the_loss_are_on_a_line_between_two_evaluations() -> None:
    assert Curve(MEAN, FAST, 0, (TARGET + 1, TARGET + 0.3, TARGET - 0.1, TARGET + 1)).updates == pytest.approx(
        2.75 * EVALUATED
    )
    assert curve().updates == pytest.approx(2 * EVALUATED)
    assert Curve(MEAN, FAST, 0, (TARGET - 0.5,)).updates == EVALUATED
    assert curve(last=TARGET + 0.01).updates is None


def test_the_best_rate_is_the_one_that_is_there_first_or_else_comes_nearest() -> None:
    late = Curve(MEAN, SLOW, 0, (TARGET + 1, TARGET + 1, TARGET - 1))
    assert curves._best([late, curve()], MEAN) == FAST
    assert curves._best([late, curve(last=TARGET + 1)], MEAN) == SLOW
    assert curves._best([curve(rate=SLOW, last=TARGET + 2), curve(last=TARGET + 1)], MEAN) == FAST


def test_without_a_text_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match="needs a text"):
        curves.curves(tmp_path, range(1))
