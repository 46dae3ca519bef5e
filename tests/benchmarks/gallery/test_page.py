import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gallery import page
from benchmarks.gallery.__main__ import main
from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.entry import Record
from benchmarks.gallery.kept import RESULTS, by_seed, keep

DSP, TEXT = ENTRIES["dsp"], ENTRIES["text"]


def record(error: float, failed: str | None = None) -> Record:
    return {
        "failed": failed,
        "test_error": None if failed else error,
        "test_loss": error / 10,
        "curve": [[1.0, error + 1, 1.0], [2.0, error, 0.5]],
        "seconds": 1800,
        "commit": "abc",
        "machine": {"cores": 2, "processor": "some", "torch": "2"},
    }


def test_the_page_says_what_is_kept_and_nothing_else() -> None:
    shown = (page.DOCS / "gallery.md").read_text()
    assert shown == page.text(), "python -m benchmarks.gallery --page writes it anew"


def test_every_picture_of_the_page_is_there() -> None:
    shown = re.findall(r"!\[[^]]*\]\((.*)\)", (page.DOCS / "gallery.md").read_text())
    assert sorted(shown) == sorted(path.name for path in page.DOCS.glob("gallery-*.svg"))


@pytest.mark.parametrize("name", ENTRIES)
def test_of_a_claim_that_is_missed_it_is_said_what_was_tried(name: str) -> None:
    for scale in page.SHOWN:
        if scale in ENTRIES[name].scales:
            said = list(page.verdicts(ENTRIES[name], scale, RESULTS))
            assert [line for line in said if line.endswith("**missed**")] == []


def test_means_spreads_verdicts_and_what_was_not_run(tmp_path: Path) -> None:
    ways = [way.name for way in DSP.scales["cpu"].ways]
    for trial in DSP.trials("cpu"):
        if trial.way != ways[3] and trial.seed < 2:
            keep(trial, record(10.0 + ways.index(trial.way) + trial.seed), tmp_path)
    text = page.text(tmp_path)
    assert "| 10.50 ± 0.71 | 1.050 ± 0.071 | 2 of 3 |" in text
    assert "| BP | `--method sgd --stages 1` |" in text
    assert f"{ways[1]} generalises no worse than BP: 1 ± 0 points (2 seeds), **missed**" in text
    assert f"{ways[3]} generalises no worse than {ways[2]}: **not run**" in text
    assert text.count("| not run |") == 1
    assert "6 runs, 3.0 hours" in text


def test_a_run_that_is_not_a_number_counts_as_chance_and_is_said(tmp_path: Path) -> None:
    for trial in DSP.trials("cpu"):
        lost = trial.way == "DSP (2,1,0)" and trial.seed == 1
        keep(trial, record(10.0, "TrainingError: nan" if lost else None), tmp_path)
    text = page.text(tmp_path)
    assert "10.00 ± 0.00; not a number with 1 of 3 | 1.000 ± 0.000 | 3 of 3 |" in text
    assert (
        "DSP (2,1,0) generalises no worse than BP: 26.7 ± 26.7 points (3 seeds, 1 run not a number and counted as 90)"
    ) in text
    assert "DSP (4,2,0) generalises no worse than BP: 0 ± 0 points (3 seeds), " in text
    assert "Not a number, and so not drawn: DSP (2,1,0) (1 run)." in text
    assert {entry.chance for entry in ENTRIES.values()} == {90.0, None}  # what the head of the page says


def test_a_loss_that_is_not_a_number_is_no_loss_of_the_epoch_before(tmp_path: Path) -> None:
    for number, trial in enumerate(TEXT.trials("cpu")):
        lost = trial.way == "K=4 GPipe, AdamW"
        keep(trial, record(20.0 + number, "TrainingError: nan" if lost else None), tmp_path)
    text = page.text(tmp_path)
    assert " | not a number with 3 of 3 | 3 of 3 |" in text
    assert "30.63, published of 8 stages): **not run**" in text  # nothing is left to hold it against


def test_a_wrong_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "no such entry (entries: nothing); there are: robust, speedup" in capsys.readouterr().out
    assert main(["dsp", "--ways", "GPipe", "nothing"]) == 2
    assert "no such way (ways: GPipe, nothing); docs/gallery.md names" in capsys.readouterr().out


def test_a_scale_that_an_entry_does_not_have_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speedup", "dsp", "robust", "--scale", "full"]) == 2
    said = capsys.readouterr().out
    assert said == "no such scale of these (entries: speedup, robust, scale: full); take smoke or cpu for them\n"


@pytest.mark.parametrize(("name", "number"), [("seeds", "0"), ("seeds", "-1"), ("workers", "0")])
def test_a_number_that_is_too_small_is_told(name: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dsp", f"--{name}", number]) == 2
    said = capsys.readouterr().out
    assert said == f"{name} must be 1 or more ({name}: {number}); --{name} may be left out\n"


def smoke(folder: Path, *names: str) -> list[str]:
    """Return the lines that the command prints."""
    asked = [*names, "--scale", "smoke", "--workers", "2", "--runs", str(folder)]
    command = [sys.executable, "-m", "benchmarks.gallery", *asked]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=580)
    return said.stdout.splitlines()


def processor_seconds() -> float:
    """Return what processes have used that this one started and waited for, with those that they did."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.timeout(600)  # for one that hangs: how long it takes is the matter of others who are on these cores
def test_smoke_trains_every_way_once_in_two_minutes_of_a_core(tmp_path: Path) -> None:
    before = processor_seconds()
    assert "1 of 1: " in smoke(tmp_path, "dsp", "--ways", "BP")[0]
    said = "\n".join(smoke(tmp_path))
    assert processor_seconds() - before < 120
    for entry in ENTRIES.values():
        assert by_seed(entry, "smoke", tmp_path / "results")[0].keys() == {t.way for t in entry.trials("smoke")}
    done = [trial.name for entry in ENTRIES.values() for trial in entry.trials("smoke") if trial.name in said]
    assert [trial.way for trial in DSP.trials("smoke") if trial.name not in done] == ["BP"]
    assert f" of {len(done)}: " in said
    again = [line for line in smoke(tmp_path) if line]  # an entry without a claim has an empty one
    assert again
    assert all(line.startswith("* ") for line in again)


def test_results_of_smoke_are_not_among_those_that_are_shown() -> None:
    assert not [path for path in RESULTS.glob("*.jsonl") if '"scale": "smoke"' in path.read_text()]
