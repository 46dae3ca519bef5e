"""One trial: trained as ``stalegrid train`` would, from its last checkpoint where it was stopped, and its figures.

Does not know: which trials there are, where figures are kept.
"""

import json
import multiprocessing
import os
import time
from pathlib import Path
from threading import Thread

from benchmarks.gallery.entry import Record, Trial
from benchmarks.measure import commit_of, machine
from stalegrid.checkpoints import FOLDER
from stalegrid.cli import make_parser
from stalegrid.commands import expanded
from stalegrid.commands.options import config_of
from stalegrid.errors import TrainingError
from stalegrid.recipes import make_task
from stalegrid.runs import execute, get_ready

SAVED = "10"
"""Minutes from one checkpoint to the next."""

FOLDERS = {"cifar10": ".", "mnist": ".", "text": "tinyshakespeare"}
"""Where the files of a data set are, in the folder of all."""


def train(trial: Trial, data: Path, runs: Path) -> Record:
    """Train a trial to its end and return what came of it.

    Args:
        trial: which.
        data: folder with the files of data sets.
        runs: folder of the runs; one that is there already goes on.

    Returns:
        Its figures, its curve, and where and when they were taken.
    """
    folder, began, commit = runs / trial.name, time.monotonic(), commit_of(Path(__file__).parent)
    words = [*trial.options, "--out", str(folder), "--checkpoint.minutes", SAVED, "--engine", "simulator"]
    parser, known = make_parser()
    asked = config_of(parser.parse_args(["train", *expanded(_with_data(words, data), known["train"])]))
    get_ready(asked)
    failed = None
    try:
        if not (folder / FOLDER / "ended").exists():  # it may have, and nobody was there to note it
            execute(make_task(asked), asked, resume="auto", quiet=True)
    except TrainingError as problem:
        failed = f"{type(problem).__name__}: {problem}"
    return {
        "failed": failed,
        **_figures(folder),
        "seconds": round(time.monotonic() - began),
        "machine": {name: value for name, value in machine().items() if name in ("processor", "cores", "gpu", "torch")},
        "commit": commit,
    }


def _with_data(words: list[str], data: Path) -> list[str]:
    name = words[words.index("--data") + 1] if "--data" in words else ""
    return [*words, "--data.folder", str(data / FOLDERS[name])] if name in FOLDERS else words


def _figures(folder: Path) -> Record:
    """Return what the folder of an ended run says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tests = [line for line in lines if line["kind"] == "test"]
    path = folder / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    found: Record = {
        "curve": [[round(line["epoch"], 4), _error(line), line["test_loss"]] for line in tests],
        "test_error": _error(tests[-1]) if tests else None,
        "test_loss": tests[-1]["test_loss"] if tests else None,
        "train_loss": summary.get("train_loss"),
        "consensus_distance": summary.get("consensus_distance"),
        "staleness": [stage["max"] for stage in summary.get("staleness", [])],
    }
    if seconds := summary.get("virtual_seconds"):
        found["virtual_rate"] = sum(line["samples"] for line in lines if line["kind"] == "train") / seconds
    if seen := summary.get("staleness_of_all"):
        found |= {"tau": seen["mean"], "tau_max": seen["max"], "tau_above": seen["above_limit"]}
        found["tau_counts"] = seen["histogram"]
    return found


def _error(line: Record) -> float | None:
    accuracy = line.get("test_accuracy")
    return None if accuracy is None else round(100 * (1 - accuracy), 4)


def end_with_parent() -> None:
    """Let this process end with the one that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, name="watch parent", daemon=True).start()
