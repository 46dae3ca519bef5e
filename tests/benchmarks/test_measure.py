import subprocess
from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.measure import Figures, Ratio, Row, as_json, best, commit_of, interleave, ratio, together


def test_competitors_take_turns() -> None:
    seen: list[str] = []
    values = iter(range(6))

    def competitor(name: str) -> float:
        seen.append(name)
        return float(next(values))

    figures = interleave({"a": lambda: competitor("a"), "b": lambda: competitor("b")}, 3)
    assert seen == ["a", "b", "a", "b", "a", "b"]
    assert figures == {"a": [0.0, 2.0, 4.0], "b": [1.0, 3.0, 5.0]}


def test_parts_that_measure_several_are_gathered_by_name() -> None:
    figures = together({"one": lambda: {"a": 1.0, "b": 2.0}, "other": lambda: {"c": 3.0}}, 2)
    assert figures == {"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [3.0, 3.0]}


def test_ratios_are_taken_turn_by_turn_and_not_of_medians() -> None:
    made = ratio({"a": [1.0, 20.0, 6.0], "b": [1.0, 10.0, 2.0]}, "a", "b")
    assert made.values == (1.0, 2.0, 3.0)
    assert made.median == 2.0
    assert made.what == "a / b"


@pytest.mark.parametrize(
    ("least", "most", "goal", "reached"),
    [
        (0.0, float("inf"), "", None),
        (1.5, float("inf"), ">= 1.5", False),
        (0.0, 1.0, "<= 1", True),
        (0.9, 1.1, "0.9 to 1.1", True),
    ],
)
def test_a_goal_is_held_against_the_median(least: float, most: float, goal: str, reached: bool | None) -> None:
    made = Ratio("a / b", (0.5, 1.0, 9.0), least, most)
    assert (made.goal, made.reached) == (goal, reached)


def test_the_best_is_chosen_in_every_turn() -> None:
    figures: Figures = {"a": [1.0, 5.0], "b": [3.0, 2.0], "c": [9.0, 9.0]}
    assert best(figures, ["a", "b"], max) == [3.0, 5.0]
    assert best(figures, ["a", "b"], min) == [1.0, 2.0]


def test_a_row_is_written_with_its_spread_and_its_machine() -> None:
    figures: Figures = {"a": [1.0, 2.0, 4.0], "b": [1.0, 1.0, 1.0]}
    found = as_json(Row(figures, [ratio(figures, "a", "b", at_most=3.0)], ["said"]))
    assert found["turns"] == 3
    assert found["figures"]["a"] == {"median": 2.0, "least": 1.0, "greatest": 4.0}
    (made,) = found["ratios"]
    assert made == {"what": "a / b", "median": 2.0, "least": 1.0, "greatest": 4.0, "goal": "<= 3", "reached": True}
    assert {"processor", "cores", "torch", "python", "threads of a process"} <= found["machine"].keys()
    assert found["notes"] == ["said"]


def test_what_was_measured_while_processors_were_taken_away_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([(0, 100), (50, 200), (50, 200), (51, 300)])
    monkeypatch.setattr(measure, "_ticks", lambda: next(ticks))
    values = iter([1.0, 2.0, 3.0])
    assert interleave({"a": lambda: next(values)}, 1) == {"a": [2.0]}


def test_it_is_not_measured_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter(range(0, 1000, 10))
    monkeypatch.setattr(measure, "_ticks", lambda: ((n := next(taken)), n))
    calls: list[int] = []
    interleave({"a": lambda: float(len(calls) if calls.append(0) else 0)}, 1)
    assert len(calls) == measure._ATTEMPTS


def test_code_differs_from_its_commit_by_what_is_changed_and_not_by_what_is_measured(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "unknown"
    code, results = tmp_path / "gallery" / "code.py", tmp_path / "gallery" / "results" / "grid.jsonl"
    results.parent.mkdir(parents=True)
    for path in (code, results):
        path.write_text("")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    commit = commit_of(code.parent)
    assert len(commit) == 12
    results.write_text("a line")
    assert commit_of(code.parent) == commit
    code.write_text("changed")
    assert commit_of(code.parent) == f"{commit}-dirty"
