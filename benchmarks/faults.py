"""``python -m benchmarks.faults NUMBER ... --out FILE``: many runs that are disturbed at random moments.

Does not know: how a trial goes.

Each trial follows from its number, but for what the machine makes of the moment.  What came of each is appended to a
file; whoever asks again goes on with those that are not there.
"""

import json
import shutil
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.started import Failed
from benchmarks.trials import Outcome, Trial, run, undisturbed

TRIALS = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run trials and return the exit status: 0 if none failed, 1 otherwise."""
    parser = ArgumentParser(prog="python -m benchmarks.faults", description="disturb runs, and see what comes of them")
    parser.add_argument("numbers", type=int, nargs="*", help="which trials; those that miss if left out")
    parser.add_argument("--trials", type=int, default=TRIALS, help="how many there are")
    parser.add_argument(
        "--out", type=Path, default=Path("faults.jsonl"), help="file; folders of failures lie beside it"
    )
    options = parser.parse_args(arguments)
    found = _read(options.out)
    done = {record["trial"] for record in found}
    numbers = options.numbers or [number for number in range(options.trials) if number not in done]
    scratch = options.out.parent / f"{options.out.stem}-runs"
    shutil.rmtree(scratch / "undisturbed", ignore_errors=True)
    reference = cache(lambda way: undisturbed(way, scratch / "undisturbed" / way.replace(" ", "-")))
    try:
        for number in numbers:
            found.append(record := _tried(Trial.drawn(number), scratch / str(number), reference))
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
    finally:
        shutil.rmtree(scratch / "undisturbed", ignore_errors=True)
        with suppress(OSError):  # there are folders of failures in it, or it was not made
            scratch.rmdir()
    show(found)
    return 1 if any(record["problem"] for record in found) else 0


def _read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def _tried(trial: Trial, folder: Path, reference: Callable[[str], Path]) -> dict[str, Any]:
    """Run a trial and return what is written of it."""
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.monotonic()
    outcome, problem = Outcome("", (), ()), ""
    try:
        outcome = run(trial, folder, reference)
    except Failed as failure:
        problem = str(failure)
    except Exception as failure:  # what a run has left may be anything
        problem = f"{type(failure).__name__}: {failure}"
    else:
        shutil.rmtree(folder)
    return {
        "trial": trial.number,
        "way": trial.way,
        "faults": [leg.name for leg in trial.legs],
        "happened": outcome.happened,
        "statuses": outcome.statuses,
        "equal": outcome.equal,
        "problem": problem,
        "seconds": round(time.monotonic() - begun, 1),
    }


def show(found: Sequence[dict[str, Any]]) -> None:
    """Print how often what happened to which runs, and which trials failed."""
    console = Console(width=None if Console().is_terminal else 160)
    ways = sorted({record["way"] for record in found})
    counts = Counter((fault, record["way"]) for record in found for fault in record["happened"])
    table = Table("what happened", *ways, "all", title=f"{len(found)} trials")
    for fault in sorted({fault for fault, _ in counts}):
        each = [counts[fault, way] for way in ways]
        table.add_row(fault, *map(str, each), str(sum(each)))
    console.print(table)
    late = sum(not record["happened"] and not record["problem"] for record in found)
    failed = [record for record in found if record["problem"]]
    console.print(f"the run had ended before: {late}; failed: {len(failed)}")
    for record in failed:
        what = f"trial {record['trial']} ({record['way']}: {', '.join(record['faults'])})"
        console.print(f"{what} failed: {record['problem']}", highlight=False, markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
