"""``python -m benchmarks.gallery``: trains what is missing and says what follows; Ctrl-C loses nothing."""

import multiprocessing
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.gallery import page
from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.entry import Trial
from benchmarks.gallery.kept import RESULTS, done, keep
from benchmarks.gallery.training import end_with_parent, train
from stalegrid.errors import StalegridError

SCALES = ("smoke", "cpu", "full")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, or write the page, and return the exit status: 0 well, 1 not, 2 for a wrong request."""
    parser = ArgumentParser(prog="python -m benchmarks.gallery", description="train published results again")
    parser.add_argument("entries", nargs="*", help=f"which: {', '.join(ENTRIES)}; if left out, all of the scale")
    parser.add_argument("--scale", choices=SCALES, default="smoke", help="how much is trained")
    parser.add_argument("--seeds", type=int, default=None, help="of the scale's seeds, the first so many")
    parser.add_argument("--ways", nargs="+", default=[""], help="only those whose names have one of these in them")
    parser.add_argument("--workers", type=int, default=1, help="trials at once, each with one thread")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder with the files of data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"), help="folder of the runs and checkpoints")
    parser.add_argument(
        "--results", type=Path, default=None, help="folder of what is kept; for smoke that of the runs, if left out"
    )
    parser.add_argument("--page", action="store_true", help="train nothing: write docs/gallery.md and its pictures")
    options = parser.parse_args(arguments)
    if wrong := _wrong(options):
        print(wrong)
        return 2
    if options.page:
        page.write()
        return 0
    results = options.results or (options.runs / "results" if options.scale == "smoke" else RESULTS)
    asked = [ENTRIES[name] for name in options.entries or ENTRIES if options.scale in ENTRIES[name].scales]
    trials = [
        trial
        for entry in asked
        for trial in entry.trials(options.scale)
        if (options.seeds is None or trial.seed < options.seeds) and any(part in trial.way for part in options.ways)
    ]
    if not trials:
        print(f"no such way (ways: {', '.join(options.ways)}); docs/gallery.md names those that there are")
        return 2
    try:
        _train(_missing(trials, results), options.workers, options.data_dir, options.runs, results)
    except StalegridError as problem:
        print(f"{type(problem).__name__}: {problem}")
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on")
        return 130
    for entry in asked:
        print("\n".join(page.verdicts(entry, options.scale, results)))
    return 0


def _wrong(options: Namespace) -> str | None:
    """Return what a request cannot have; None where it can have all."""
    if unknown := [name for name in options.entries if name not in ENTRIES]:
        return f"no such entry (entries: {', '.join(unknown)}); there are: {', '.join(ENTRIES)}"
    if without := [name for name in options.entries if options.scale not in ENTRIES[name].scales]:
        have = " or ".join(scale for scale in SCALES if all(scale in ENTRIES[name].scales for name in without))
        return f"no such scale of these (entries: {', '.join(without)}, scale: {options.scale}); take {have} for them"
    for name in ("seeds", "workers"):
        number = getattr(options, name)
        if number is not None and number < 1:
            return f"{name} must be 1 or more ({name}: {number}); --{name} may be left out"
    return None


def _missing(trials: Sequence[Trial], results: Path) -> list[Trial]:
    """Return what has not been trained yet, of all entries the first seed before the next."""
    ended = done(trials, results)
    return sorted((trial for trial in trials if trial not in ended), key=lambda trial: trial.seed)


def _train(trials: Sequence[Trial], workers: int, data: Path, runs: Path, results: Path) -> None:
    """Train, so many at once, in processes that end with this one, and keep what came of each at once."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
        begun = {pool.submit(train, trial, data, runs): trial for trial in trials}
        try:
            for number, future in enumerate(as_completed(begun), 1):
                trial, found = begun[future], future.result()
                keep(trial, found, results)
                said = found["failed"] or f"test error {found['test_error']}, test loss {found['test_loss']}"
                print(f"{number} of {len(trials)}: {trial.name}: {said}, {found['seconds']} s", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    sys.exit(main())
