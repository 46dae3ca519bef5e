"""The folder of a run: what is written and said before it starts, and what will take its observations.

Does not know: engines, agents.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from stalegrid.errors import ConfigError, OutputError
from stalegrid.observe.callbacks import Callback, Calling
from stalegrid.observe.console import ConsoleSink
from stalegrid.observe.displays import display_of
from stalegrid.observe.folder import CONFIG, FAILURE, LIMITS, METRICS, Folder
from stalegrid.observe.loggers import Logger, spared
from stalegrid.observe.parts import Saved
from stalegrid.observe.records import Record, Sink
from stalegrid.observe.settings import OutputSettings
from stalegrid.observe.sinks import Dispensable, Several
from stalegrid.observe.stream import make_console, tell
from stalegrid.written import to_json, to_yaml, write_text


@contextmanager
def open_folder(out: Path | None, *, again: bool = False) -> Iterator[Path]:
    """Make the output folder, or one that is removed again if none was asked for, or open that of a run that goes on.

    Where something is refused before the run has started, the folder is removed, so that the same command runs once
    that is mended.  What a run that has started wrote is never removed: it has once there is a record of it.  How it
    failed, or was interrupted, is noted there.

    Raises:
        ConfigError: the folder cannot be made.
    """
    if out is None:
        with _scratch() as folder:
            yield folder
        return
    if not again:
        try:
            out.mkdir(parents=True)
        except OSError as problem:
            raise ConfigError(f"the output folder cannot be made (out: {out}): {problem.strerror}") from problem
    try:
        yield out
    except BaseException as problem:
        # What was refused to go on has its records too; what cannot be written any more has gone on.
        kinds = (ConfigError,) if again else (ConfigError, OutputError)
        refused = isinstance(problem, kinds) and (again or not _has_records(out))
        if refused and not again:
            shutil.rmtree(out, ignore_errors=True)
        elif not refused and (out / CONFIG).exists():
            _note(out, problem)
        raise


def _note(out: Path, problem: BaseException) -> None:
    with suppress(OutputError):  # the first error is the one to tell
        found = {"by": type(problem).__name__, "why": " ".join(str(problem).split())}
        write_text(out / FAILURE, to_json(found, indent=2) + "\n")


def _has_records(out: Path) -> bool:
    metrics = out / METRICS
    return metrics.exists() and metrics.stat().st_size > 0


@contextmanager
def _scratch() -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="stalegrid-run-"))
    except OSError as problem:
        raise ConfigError(
            f"there is no place for temporary files ({problem}); let TMPDIR name a folder that can be written"
        ) from problem
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def announce(line: str, config: Record, limits: Record | None, folder: Path, quiet: bool) -> None:
    """Write the settled configuration, and say what will run.

    Args:
        line: that describes the run.
        config: as it is written down.
        limits: which rates the run bears, where that was measured for it now.
        folder: of the run; what it says of an earlier failure is over.
        quiet: whether to say nothing.
    """
    (folder / FAILURE).unlink(missing_ok=True)
    write_text(folder / CONFIG, to_yaml(config))
    if limits is not None:
        write_text(folder / LIMITS, to_json(limits, indent=2) + "\n")
    if not quiet:
        tell(line)


def make_sink(
    folder: Path,
    facts: Record,
    limit: int | None,
    updates: int,
    output: OutputSettings,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    settings: Record,
    quiet: bool,
    notebook: bool,
    keep_units: bool,
    again: bool = False,
    parts: Sequence[Saved] = (),
) -> Sink:
    """Make the sink of a run, in whichever process the observer lives.

    Args:
        folder: of the run.
        facts: what the summary says of the plan.
        limit: staleness from which on histograms are cut; None for none.
        updates: N.
        output: what is told.
        callbacks: called with what is observed.
        loggers: that are given every record.
        settings: of the run, which loggers are told.
        quiet: whether nothing is shown.
        notebook: whether what is shown is read in one.
        keep_units: whether the parameters of every unit are kept.
        again: whether the run goes on in the folder.
        parts: what of the model each stage saves; none where the observer saves it.
    """
    say = (lambda line: None) if quiet else partial(tell, name="stderr")
    kept = spared(loggers, say)
    files = Folder(folder, facts, keep_units, limit, output.best, kept, again=again, parts=parts)
    for logger in kept:
        logger.start(settings)
    sinks: list[Sink] = [files]
    if not quiet:
        groups = facts.get("groups", 1) > 1

        def show() -> Sink:
            return ConsoleSink(display_of(make_console(), updates, notebook), groups)

        sinks.append(Dispensable("this display", show, say))
    if callbacks:
        calling = Calling(callbacks, folder, lambda: files.summary)
        files.stopped = lambda: calling.stopped
        sinks.append(calling)
    return Several(sinks)
