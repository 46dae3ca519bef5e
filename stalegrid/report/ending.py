"""How a run came to its end, and what was lost on the way.

Does not know: records beyond how far they go.
"""

from collections.abc import Iterator

from stalegrid.report.marks import Mark, Verdict
from stalegrid.report.told import Told
from stalegrid.report.words import both, count

LEFT = ("Interrupted", "KeyboardInterrupt")
"""Failures that somebody asked for."""


def ending_verdict(run: Told) -> Iterator[Verdict]:
    """Say whether the run came to its end."""
    if run.failure:
        asked = run.failure["by"] in LEFT
        why = f": {run.failure['why']}" if run.failure["why"] else ""
        how = "It was interrupted" if asked else f"It ended in {run.failure['by']}"
        yield Verdict(Mark.OPEN if asked else Mark.WRONG, f"{how}, {_so_far(run)}{why}.")
    elif run.stopped:
        yield Verdict(Mark.WELL, f"{_stopped(run)}.")
    elif run.train and run.finished:
        yield Verdict(Mark.WELL, f"It came to its end: {progress(run)}.")
    else:
        yield Verdict(Mark.OPEN, f"It goes on, or was ended from outside: {_so_far(run)}.")


def lost_verdict(run: Told) -> Iterator[Verdict]:
    """Say which groups or learners were lost, and which groups came back."""
    for loss in run.summary.get("lost_groups") or ():
        yield Verdict(Mark.WRONG, f"Group {loss['group']} was lost after update {loss['version']}: {loss['why']}.")
    for back in run.summary.get("returned_groups") or ():
        line = f"Group {back['group']} came back after update {back['version']}, as group {back['donor']} was then."
        yield Verdict(Mark.WELL, line)
    gone = [(number, record["update"]) for record in run.train for number in record.get("lost") or ()]
    if gone:
        told = both([f"learner {number} by update {update}" for number, update in gone])
        yield Verdict(Mark.WRONG, f"Lost: {told}.")


def subtitle(run: Told) -> str:
    """Say what was trained how, and how much of it is done."""
    grid = f"{run.asked('grid.groups')} x {run.asked('grid.stages')} (groups x stages)"
    described = [grid if run.team is None else str(run.team)]
    told = (run.asked(path) for path in ("model.name", "engine.kind", "training.dtype", "training.precision"))
    described += [str(name) for name in told if name]
    described += ["channels last"] if run.asked("training.channels_last") else []
    described += ["compiled"] if run.asked("training.compile") else []
    return f"{', '.join(described)}. {_so_far(run).capitalize()}."


def _so_far(run: Told) -> str:
    return progress(run) if run.train else "nothing has been reported yet"


def progress(run: Told) -> str:
    """Say how much of a run is reported."""
    name, done, asked = run.done
    return f"{count(done)} of {count(asked)} {name}"


def _stopped(run: Told) -> str:
    why = f" ({run.stopped['why']})" if run.stopped["why"] else ""
    return f"Stopped by {run.stopped['by']} at version {run.stopped['version']}{why}"
