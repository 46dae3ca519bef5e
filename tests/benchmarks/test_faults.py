"""A dozen of the trials of ``python -m benchmarks.faults``: each disturbance and each run is among them."""

import json
import re
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import pytest

from benchmarks import faults, trials
from benchmarks.disturbing import DAMAGES, FAULTS, KILLED
from benchmarks.started import Failed
from benchmarks.trials import WAYS, Outcome, Trial, run, undisturbed

pytestmark = pytest.mark.thorough

CHOSEN = (0, 5, 9, 11, 12, 13, 18, 22, 28, 43, 62, 70)

Reference = Callable[[str], Path]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("undisturbed")
    return cache(lambda way: undisturbed(way, folder / way))


@pytest.mark.parametrize("number", CHOSEN)
def test_a_disturbed_run_comes_to_the_bits_of_an_undisturbed_one(
    number: int, reference: Reference, tmp_path: Path
) -> None:
    assert run(Trial.drawn(number), tmp_path / "trial", reference).equal


def test_every_disturbance_and_every_run_is_among_the_chosen() -> None:
    chosen = [Trial.drawn(number) for number in CHOSEN]
    assert {trial.way for trial in chosen} == WAYS.keys()
    happened = {leg.fault.name for trial in chosen for leg in trial.legs}
    assert happened == {fault.name for fault in FAULTS}
    assert sum(leg.damage is not None for trial in chosen for leg in trial.legs) >= 2
    assert any(trial.returns and leg.fault.workers for trial in chosen for leg in trial.legs)


def test_other_bits_fail(reference: Reference, tmp_path: Path) -> None:
    way, other = "softsync in order", tmp_path / "other"
    whole = reference(way)
    for name, value in (("metrics.jsonl", '{"kind": "train", "update": 2}\n'), ("model.safetensors", "x")):
        other.mkdir(exist_ok=True)
        for file in whole.glob("*.*"):
            (other / file.name).write_bytes(file.read_bytes())
        trials._compare(whole, other)
        (other / name).write_text(value)
        with pytest.raises(Failed, match=str(other)):
            trials._compare(whole, other)


def test_a_run_that_trains_again_what_was_saved_fails(tmp_path: Path) -> None:
    course = trials._Course(Trial.drawn(0), tmp_path / "trial")
    course.run.mkdir()
    lines = [f'{{"kind": "train", "update": {update}, "seconds": 0.5}}\n' for update in (2, 4, 6)]
    (course.run / "metrics.jsonl").write_text("".join(lines))
    kept = trials._reports(course.run, 6)
    assert kept == lines[:2]
    (course.run / "metrics.jsonl").write_text("".join([*lines[:2], lines[2].replace("0.5", "0.6")]))
    course._check_kept(kept)
    (course.run / "metrics.jsonl").write_text("".join([lines[0], lines[1].replace("0.5", "0.6")]))
    with pytest.raises(Failed, match="trained again"):
        course._check_kept(kept)


class Over:
    """A run that is killed after it has ended, before its process has."""

    begun, pid, alive = 0, 0, False

    def __init__(self, command: list[str], said: Path) -> None:
        self.checkpoints = said.parent / "run" / "checkpoints"

    def wait(self, seconds: float) -> int:
        self.checkpoints.mkdir(parents=True)
        (self.checkpoints / "ended").write_text("120\n")
        return -signal.SIGKILL

    def end(self) -> None:
        pass


def test_a_run_that_is_killed_after_its_end_has_nothing_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "Started", Over)
    course = trials._Course(Trial.drawn(0), tmp_path / "trial")
    course.disturbed(trials.Leg("processes", 20, KILLED, "removed file", -0.1, 0.0))
    assert course.ended
    assert course.happened == []


def test_every_damage_changes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for damage in DAMAGES.values():
        for seed in range(20):
            path.write_bytes(b"0123456789")
            damage(path, Random(seed))
            assert not path.exists() or path.read_bytes() != b"0123456789"


def test_trials_follow_from_their_numbers() -> None:
    assert [Trial.drawn(n) for n in range(50)] == [Trial.drawn(n) for n in range(50)]
    assert len({Trial.drawn(n).legs for n in range(50)}) == 50


def test_what_was_found_is_kept_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def quick(trial: Trial, folder: Path, reference: Reference) -> Outcome:
        seen.append(trial.number)
        folder.mkdir(parents=True)
        if len(seen) == 3:
            raise KeyboardInterrupt
        if trial.number == 1:
            raise Failed("it hangs")
        return Outcome("the undisturbed run", ("SIGTERM",), (75,))

    monkeypatch.setattr(faults, "run", quick)
    out = tmp_path / "found.jsonl"
    assert faults.main(["--trials", "4", "--out", str(out)]) == 1
    assert faults.main(["--trials", "4", "--out", str(out)]) == 1
    assert seen == [0, 1, 2, 2, 3]
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(record["trial"], record["problem"]) for record in found] == [(0, ""), (1, "it hangs"), (2, ""), (3, "")]
    assert found[0]["statuses"] == [75]
    assert re.search(r"trial 1 \(.*\) failed: it hangs", capsys.readouterr().out)
    assert (tmp_path / "found-runs" / "1").is_dir()
    assert not (tmp_path / "found-runs" / "0").exists()
