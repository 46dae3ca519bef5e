"""What came of trials, a line each, in benchmarks/gallery/results: it is read back, and nothing is trained twice.

Does not know: how anything is trained or shown.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gallery.entry import Entry, Record, Same, Trial

RESULTS = Path(__file__).parent / "results"
COSTS = Path("benchmarks/gallery/costs")
"""Tables of costs; commands are those of the project's folder."""


def file_of(entry: str, folder: Path = RESULTS) -> Path:
    """Return the file of an entry."""
    return folder / f"{entry}.jsonl"


def keep(trial: Trial, found: Record, folder: Path = RESULTS) -> None:
    """Add what came of a trial.

    Args:
        trial: that has ended, well or not.
        found: its figures, and where they were taken.
        folder: of the results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    line = {**vars(trial), "options": list(trial.options), **found}
    with file_of(trial.entry, folder).open("a") as file:
        file.write(json.dumps(line) + "\n")


def done(trials: Sequence[Trial], folder: Path = RESULTS) -> dict[Trial, Record]:
    """Return what came of those trials that have ended; one of other options is another trial."""
    found = {}
    for trial in trials:
        for line in _lines(trial.entry, folder):
            if {**line, "options": tuple(line["options"])}.items() >= vars(trial).items():
                found[trial] = line
    return found


def by_seed(entry: Entry, scale: str, folder: Path = RESULTS) -> list[Same]:
    """Return what came of an entry's trials, seed by seed."""
    ended = done(entry.trials(scale), folder)
    seeds = range(entry.scales[scale].seeds)
    return [{trial.way: found for trial, found in ended.items() if trial.seed == seed} for seed in seeds]


def _lines(entry: str, folder: Path) -> list[Record]:
    path = file_of(entry, folder)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
