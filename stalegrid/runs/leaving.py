"""How a run leaves before its end, asked by signals, and says how it goes on.

Does not know: what runs, plans but for whether they can be asked.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stalegrid.checkpoints import newest
from stalegrid.engines import Job, leaving_in_order
from stalegrid.errors import Interrupted
from stalegrid.observe import tell


@contextmanager
def leaving(job: Job) -> Iterator[Callable[[], bool]]:
    """Let signals ask a run to leave that can be asked, and say of one that they end how it goes on."""
    if job.keeping is None:
        yield lambda: False
        return
    if not job.plan.program.askable:
        try:
            yield lambda: False
        except (KeyboardInterrupt, SystemExit):
            # It is saved as planned alone, or not at all any more.
            if (source := newest(job.folder)) is not None:
                again = f"stalegrid resume {job.folder}, or train(..., resume={str(job.folder)!r})"
                tell(f"the run has ended at once; it goes on from version {source.version} with: {again}", "stderr")
            raise
        return
    with leaving_in_order(partial(tell, name="stderr")) as asked:
        yield asked


def left(folder: Path, *, named: bool) -> Interrupted:
    """Return the error of a run that was asked to leave.

    Args:
        folder: of the run.
        named: whether its settings also say what is trained, so that the command line can go on with it.
    """
    source = newest(folder)
    if source is None:
        return Interrupted(
            f"the run was asked to leave, and has, but no checkpoint of it could be written (folder: {folder})"
        )
    again = f"stalegrid resume {folder}" if named else f"the same script, with train(..., resume={str(folder)!r})"
    return Interrupted(
        f"the run was asked to leave, and has (checkpoint: {source.folder}); it goes on to the bit with: {again}"
    )
