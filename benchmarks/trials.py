"""One run that is disturbed, goes on as its user would go on with it, and is held against one that nobody disturbed.

Does not know: how a disturbance is done, which trials there are.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.disturbing import DAMAGES, FAULTS, KILLED, TERMINATED, Fault
from benchmarks.started import Failed, Started, wait_for
from stalegrid.checkpoints import FOLDER, ask_back, folder_of
from stalegrid.checkpoints.taken import end_of
from stalegrid.observe import METRICS, MODEL, SUMMARY
from stalegrid.plans import RETURNED, Membership
from stalegrid.recipes import make_task
from stalegrid.studies import recorded_config, replay
from stalegrid.studies.losing import relive

UPDATES = 120
PATIENCE = 100.0
"""Seconds within which whatever was started has ended, on a machine that does other things too."""

TIMES = ("seconds", "samples_per_second", "shares")
"""What two runs of the same bits do not have in common."""

_LOSS = "the others go on from version"
"""What a run says that goes on without a group."""

_DEADLINE = 2.0  # seconds of a run in which a process is stopped
_SAMPLES = ("--batch-size", "8", "--updates", str(UPDATES), "--output.log-every", "2", "--output.evaluate-every", "2")
_SMALL = ("--model", "benchmarks.small:net", "--data", "benchmarks.small:sets", "--output.loggers", "", *_SAMPLES)


@dataclass(frozen=True)
class Way:
    """A run that is disturbed.

    Args:
        options: of the command line.
        engines: that it may go on on, each time.
        recorded: whether what happens decides its numbers, and is recorded: it is held against its replay.
        loses: whether it goes on without groups that are lost.
    """

    options: tuple[str, ...]
    engines: tuple[str, ...] = ("processes",)
    recorded: bool = False
    loses: bool = False


_BOTH = ("processes", "simulator")
_SERVED = ("--method", "softsync", "--learners", "3")
_THREE = ("--groups", "3", "--stages", "1", "--method", "pham-ahn", "--topology", "complete", "--mixing.lag", "1")
WAYS = {
    "grid": Way(("--groups", "2", "--stages", "2", "--cuts", "4", "--method", "pham-ahn", "--mixing.lag", "1"), _BOTH),
    "pipeline": Way(("--groups", "1", "--stages", "3", "--cuts", "3,4", "--method", "dsp"), _BOTH),
    "softsync": Way(_SERVED, recorded=True),
    "softsync in order": Way(_SERVED, ("simulator",)),
    "three groups": Way((*_THREE, "--engine.on-loss", "continue"), loses=True),
}


@dataclass(frozen=True)
class Leg:
    """What happens to a run until it has ended.

    Args:
        engine: it goes on on.
        every: updates from one checkpoint to the next.
        fault: what happens.
        damage: what happens to its newest checkpoint afterwards; None for nothing.
        moment: when, as a share of the updates to come; below 0 for that many seconds after the start.
        delay: seconds after that.
    """

    engine: str
    every: int
    fault: Fault
    damage: str | None
    moment: float
    delay: float

    @property
    def name(self) -> str:
        """What happens, for the reader."""
        return self.fault.name if self.damage is None else self.damage


@dataclass(frozen=True)
class Trial:
    """A run and what happens to it.

    Args:
        number: from which all is drawn.
        way: name of the run.
        legs: what happens, one after the other.
    """

    number: int
    way: str
    legs: tuple[Leg, ...]

    @property
    def returns(self) -> bool:
        """Whether groups that are lost are asked back."""
        return WAYS[self.way].loses and Random(f"{self.number} comes back").random() < 0.5

    @classmethod
    def drawn(cls, number: int) -> "Trial":
        """Draw one."""
        draw = Random(number)
        way = draw.choice(list(WAYS))
        return cls(number, way, tuple(_leg(WAYS[way], draw) for _ in range(draw.choice((1, 1, 2)))))


def _leg(way: Way, draw: Random) -> Leg:
    possible: list[tuple[Fault, str | None]] = [
        (f, None) for f in FAULTS if "processes" in way.engines or not f.workers
    ]
    fault, damage = draw.choice([*possible, *((draw.choice((KILLED, TERMINATED)), damage) for damage in DAMAGES)])
    engine = "processes" if fault.workers else draw.choice(way.engines)
    # Who stops before all have met is waited for for minutes, as one that loads for long.
    early = draw.random() < 0.15 and not fault.silent
    moment = -draw.uniform(0.3, 3) if early else draw.random()
    return Leg(engine, draw.randrange(3, 30), fault, damage, moment, draw.uniform(0, 0.03))


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Args:
        equal: which run it has the bits of.
        happened: what there was time for, before the run had ended.
        statuses: with which it ended each time; 0 where it came to its end all the same.
    """

    equal: str
    happened: tuple[str, ...]
    statuses: tuple[int, ...]


def undisturbed(way: str, folder: Path) -> Path:
    """Make a run that nothing happens to, and return its folder.

    Raises:
        Failed: it does not come to its end.
    """
    course = _Course(Trial(0, way, ()), folder)
    course.goes_to_its_end(WAYS[way].engines[-1])
    return course.run


def run(trial: Trial, folder: Path, reference: Callable[[str], Path]) -> Outcome:
    """Run a trial.

    Args:
        trial: which.
        folder: new, for all that it writes.
        reference: name of a way -> folder of such a run that nothing has happened to.

    Returns:
        What came of it.

    Raises:
        Failed: it hangs, leaves processes behind, ends as it must not, has lost something, or has other bits.
    """
    course = _Course(trial, folder)
    for leg in trial.legs:
        if course.ended:
            break
        course.disturbed(leg)
    if not course.ended:
        course.goes_to_its_end(Random(~trial.number).choice(WAYS[trial.way].engines))
    equal = _held(WAYS[trial.way], course.run, folder / "again", lambda: reference(trial.way))
    back = ["a group comes back"] if _summary(course.run).get(RETURNED) else []
    return Outcome(equal, (*course.happened, *back), tuple(course.statuses))


class _Course:
    """A run from its beginning to its end, whatever happens to it.

    Args:
        trial: which.
        folder: new, for all that it writes.
    """

    def __init__(self, trial: Trial, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.run = folder / "run"
        self._said = folder / "said.txt"
        self._way = WAYS[trial.way]
        self._returns = trial.returns
        self._draw = Random(~trial.number)
        self.ended = False
        self.happened: list[str] = []
        self.statuses: list[int] = []

    def disturbed(self, leg: Leg) -> None:
        """Let a leg happen."""
        more = ["--engine.deadline", str(_DEADLINE)] if leg.fault.silent else []
        kept = _reports(self.run, max(_wholes(self.run), default=0))
        started = Started([*self._command(leg.engine, leg.every), *more], self._said)
        try:
            self._wait(started, leg)
            before, version = _wholes(self.run), _version(self.run, started.begun)
            if leg.fault.strike(started, self._draw):
                self.happened.append(leg.fault.name)
                self._ask_back(started)
            status = started.wait(PATIENCE)
        finally:
            started.end()
        self.statuses.append(status)
        if status not in (0, *leg.fault.statuses):
            raise Failed(f"it ended with status {status} after {leg.fault.name}")
        # It may be killed after it has ended, while its process does.
        self.ended = status == 0 or end_of(self.run / FOLDER) is not None
        self._check_left(leg.fault, status, before, version)
        self._check_kept(kept)
        if leg.damage is not None and not self.ended and _wholes(self.run):
            self.happened.append(leg.damage)
            self._damaged(DAMAGES[leg.damage])

    def _ask_back(self, started: Started) -> None:
        """Ask for what is lost, as soon as the others go on without."""

        def gone() -> bool:
            return self._said.exists() and _LOSS in self._said.read_text()

        if self._returns and wait_for(lambda: not started.alive or gone(), PATIENCE):
            ask_back(self.run / FOLDER, None)

    def goes_to_its_end(self, engine: str) -> None:
        """Let it go on with nothing that happens, but that lost groups come back."""
        if self._returns and _wholes(self.run):
            ask_back(self.run / FOLDER, None)
        self._end(self._command(engine, 20), 0, max(_wholes(self.run), default=0))
        self.ended = True

    def _command(self, engine: str, every: int) -> list[str]:
        """Return a command that begins the run or goes on with it; where it can be either, any."""
        happens = ["--engine", engine, "--checkpoint", str(every)]
        if _wholes(self.run) and self._draw.random() < 0.5:
            return ["resume", str(self.run), *happens]
        return ["train", *_SMALL, *self._way.options, "--out", str(self.run), "--resume", "auto", *happens]

    def _end(self, command: Sequence[str], status: int, since: int = 0) -> str:
        """Run a command, which has to end with a status, and to go on from a version; return what it says."""
        kept = _reports(self.run, since)
        before = self._said.stat().st_size if self._said.exists() else 0
        started = Started(command, self._said)
        try:
            found = started.wait(PATIENCE)
        finally:
            started.end()
        said = self._said.read_text()[before:]
        if found != status:
            raise Failed(f"{' '.join(command)} ended with status {found} and not {status}: {said[-500:]}")
        self._check_kept(kept)
        return said

    def _wait(self, started: Started, leg: Leg) -> None:
        """Wait for the moment, or the end."""
        if leg.moment < 0:
            wait_for(lambda: not started.alive, -leg.moment)
        else:
            first = max(_wholes(self.run), default=0)
            due = first + 1 + int(leg.moment * (UPDATES - first))
            if not wait_for(lambda: _version(self.run, started.begun) >= due or not started.alive, PATIENCE):
                raise Failed(f"it hangs: it has not come to update {due} within {PATIENCE:g} s")
        wait_for(lambda: not started.alive, leg.delay)

    def _check_left(self, fault: Fault, status: int, before: Sequence[int], version: int) -> None:
        """Check that what was saved is there, and that a run that could leave has left."""
        after = _wholes(self.run)
        if max(before, default=0) > max(after, default=0) and not self.ended:
            raise Failed(f"the checkpoint of version {max(before)} is lost (there are: {after})")
        if status == 75 and not after:
            raise Failed("it has left without a checkpoint")
        asked = 75 in fault.statuses and 0 < version < UPDATES // 2
        if asked and status not in (0, 75):
            raise Failed(f"it was asked to leave at update {version}, and ended with status {status}")

    def _check_kept(self, kept: Sequence[str]) -> None:
        """Check that what was reported before the last checkpoint was not trained again, as its times would show."""
        if _reports(self.run)[: len(kept)] != kept:
            raise Failed(f"it did not go on from its newest checkpoint, but trained again: {kept[-1]}")

    def _damaged(self, damage: Callable[[Path, Random], None]) -> None:
        """Damage a file of the newest checkpoint; the run must refuse it by name, and go on as it says."""
        wholes = _wholes(self.run)
        folder = folder_of(self.run / FOLDER, wholes[-1])
        file = self._draw.choice(sorted(folder.iterdir()))
        damage(file, self._draw)
        if wholes[-1] not in _wholes(self.run):
            return  # without a manifest it is none, as one that was not written whole
        said = self._end(["resume", str(self.run)], 2)
        if str(file) not in said:
            raise Failed(f"the damaged file is not named (file: {file}): {said[-500:]}")
        older_version = wholes[-2] if len(wholes) > 1 else 0
        if self._draw.random() < 0.5:
            shutil.rmtree(folder)
        elif self._draw.random() < 0.5 and older_version:
            older = folder_of(self.run / FOLDER, older_version)
            if str(older) not in said:
                raise Failed(f"the older checkpoint is not named (folder: {older}): {said[-500:]}")
            self._end(["resume", str(older), "--engine", self._way.engines[-1]], 0, older_version)
            self.ended = True
        else:
            options = [*_SMALL, *self._way.options, "--engine", self._way.engines[-1], "--checkpoint", "20"]
            said = self._end(["train", *options, "--out", str(self.run), "--resume", "auto"], 0, older_version)
            if str(file) not in said:
                raise Failed(f"the damaged file that was passed over is not named (file: {file}): {said[-500:]}")
            self.ended = True


def _wholes(run: Path) -> list[int]:
    """Return the versions of the checkpoints that have a manifest, the newest last."""
    found = (run / FOLDER).iterdir() if (run / FOLDER).is_dir() else ()
    return sorted(int(path.name) for path in found if (path / "manifest.json").exists())


def _reports(run: Path, until: int = UPDATES + 1) -> list[str]:
    """Return the reports of a run before an update, as they are in its file."""
    try:
        lines = (run / METRICS).read_text().splitlines(keepends=True)
    except OSError:  # not there yet
        return []
    found = [line for line in lines if line.startswith('{"kind": "train"') and line.endswith("\n")]
    return [line for line in found if json.loads(line)["update"] < until]


def _version(run: Path, since: int) -> int:
    """Return the update that was reported last by a process that was started at a time; 0 for none."""
    try:
        if (run / METRICS).stat().st_mtime_ns < since:
            return 0
    except OSError:  # not there yet
        return 0
    reports = _reports(run)
    return int(json.loads(reports[-1])["update"]) if reports else 0


def _held(way: Way, run: Path, scratch: Path, reference: Callable[[], Path]) -> str:
    """Hold a run that has ended against the one that it must have the bits of, and say which that is."""
    summary = _summary(run)
    config = recorded_config(run)
    if way.recorded:
        found = replay(make_task(config), config, run, quiet=True)
        if not found.equal:
            raise Failed(f"it has other bits than its replay (largest difference: {found.difference:g})")
        updates = [line["update"] for line in _lines(run) if line["kind"] == "train"]
        if updates != list(range(2, UPDATES + 1, 2)):
            raise Failed(f"its reports are not whole: {updates}")
        return "its replay"
    membership = Membership.of(summary)
    if membership.lost:
        relive(make_task(config), config, membership, scratch, quiet=True)
        _compare(run, scratch)
        return "its replay without lost groups"
    _compare(run, reference())
    return "the undisturbed run"


def _compare(run: Path, other: Path) -> None:
    if (run / MODEL).read_bytes() != (other / MODEL).read_bytes():
        raise Failed(f"the model has other bits than that of {other}")
    if _lines(run) != _lines(other):
        raise Failed(f"the metrics are others than those of {other}")
    if _summary(run) != _summary(other):
        raise Failed(f"the summary is another one than that of {other}")


def _lines(run: Path) -> list[dict[str, Any]]:
    return [_timeless(json.loads(line)) for line in (run / METRICS).read_text().splitlines()]


def _summary(run: Path) -> dict[str, Any]:
    return _timeless(json.loads((run / SUMMARY).read_text()))


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}
