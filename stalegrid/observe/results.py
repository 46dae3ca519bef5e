"""The folder of a run: what is written and said before it starts, and what will take its observations.

Does not know: engines, agents.
"""

import dataclasses
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stalegrid.config import Settings
from stalegrid.errors import ConfigError, OutputError
from stalegrid.observe.console import ConsoleSink
from stalegrid.observe.folder import CONFIG, METRICS, Folder
from stalegrid.observe.records import Record, Sink
from stalegrid.observe.sinks import Dispensable, Several
from stalegrid.observe.stream import console, tell
from stalegrid.observe.tensorboard import TensorBoard
from stalegrid.plans.plan import Plan, settle
from stalegrid.plans.served import ServedPlan, settle_served
from stalegrid.written.files import write_text
from stalegrid.written.kept import to_yaml


@contextmanager
def open_folder(out: Path | None) -> Iterator[Path]:
    """Make the output folder, or one that is removed again if none was asked for.

    Where something is refused before the run has started, the folder is removed, so that the same command runs once
    that is mended.  What a run that has started wrote is never removed: it has once there is a record of it.

    Raises:
        ConfigError: the folder cannot be made.
    """
    if out is None:
        with _scratch() as folder:
            yield folder
        return
    try:
        out.mkdir(parents=True)
    except OSError as problem:
        raise ConfigError(f"the output folder cannot be made (out: {out}): {problem.strerror}") from problem
    try:
        yield out
    except (ConfigError, OutputError):
        if not _has_records(out):
            shutil.rmtree(out, ignore_errors=True)
        raise


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


def announce(plan: Plan | ServedPlan, settings: Settings, folder: Path, quiet: bool) -> None:
    """Write the settled configuration, and say what will run.

    Args:
        plan: of the run.
        settings: it was made of.
        folder: of the run.
        quiet: whether to say nothing.
    """
    made = settle_served(plan, settings) if isinstance(plan, ServedPlan) else settle(plan, settings)
    settled = dataclasses.asdict(made)
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in settled.items() if k != "out"}
    write_text(folder / CONFIG, to_yaml(plain))
    if not quiet:
        tell(headline(plan, settings))


def headline(plan: Plan | ServedPlan, settings: Settings) -> str:
    """Describe a run in a line."""
    what = _served(plan, settings) if isinstance(plan, ServedPlan) else _grid(plan, settings)
    types = ", ".join(sorted({str(stage.dtype).removeprefix("torch.") for stage in plan.stages}))
    return (
        f"{plan.method.name}: {what}; {plan.program.updates} updates in {types}, {settings.threads} of "
        f"{os.cpu_count()} threads a process"
    )


def _served(plan: ServedPlan, settings: Settings) -> str:
    rules = plan.rules
    bound = "not bounded" if rules.bound is None else f"at most {rules.bound} updates"
    return (
        f"learners: {rules.learners}, servers: {plan.program.servers}, on {settings.engine}; {rules.gather} gradients "
        f"an update, staleness {bound}, corrections {', '.join(plan.corrections) or 'none'}"
    )


def _grid(plan: Plan, settings: Settings) -> str:
    gap = "" if plan.spectral_gap is None else f", spectral gap {plan.spectral_gap:.4g}"
    cuts = "" if not plan.partition.names else f", cut before {', '.join(plan.partition.names)}"
    held = ", ".join(f"{nbytes / 1e6:.3g}" for nbytes in plan.held)
    bounds = ", ".join(str(plan.schedule.bound(k)) for k in range(plan.grid.stages))
    return (
        f"{plan.grid.groups} x {plan.grid.stages} (groups x stages) on {settings.engine}{cuts}; staleness at most "
        f"{bounds} updates, view {plan.view}, holding at most {held} MB; mixing {plan.mixing}{gap}"
    )


def sink_maker(plan: Plan | ServedPlan, folder: Path, quiet: bool, keep_units: bool) -> Callable[[], Sink]:
    """Return what makes the sink of a run, in whichever process the observer lives.

    Args:
        plan: of the run.
        folder: of the run.
        quiet: whether nothing is shown.
        keep_units: whether the parameters of every unit are kept.
    """
    if isinstance(plan, ServedPlan):
        facts, limit = _served_facts(plan), 2 * plan.splits
    else:
        facts, limit = _grid_facts(plan), None
    return partial(_make_sink, folder, facts, limit, plan.program.updates, quiet, keep_units)


def _served_facts(plan: ServedPlan) -> Record:
    return {
        "method": plan.method.name,
        "learners": plan.rules.learners,
        "servers": plan.program.servers,
        "softsync": plan.splits,
        "gradients_an_update": plan.rules.gather,
        "max_staleness": plan.rules.bound,
        "corrections": list(plan.corrections),
    }


def _grid_facts(plan: Plan) -> Record:
    return {
        "method": plan.method.name,
        "groups": plan.grid.groups,
        "stages": plan.grid.stages,
        "view": plan.view,
        "mixing": plan.mixing,
        "cuts": list(plan.partition.names),
        "spectral_gap": plan.spectral_gap,
        "held_at_most": list(plan.held),
    }


def _make_sink(folder: Path, facts: Record, limit: int | None, updates: int, quiet: bool, keep_units: bool) -> Sink:
    say = (lambda line: None) if quiet else partial(tell, name="stderr")
    sinks: list[Sink] = [Folder(folder, facts, keep_units, limit)]
    if importlib.util.find_spec("tensorboard"):
        sinks.append(Dispensable("TensorBoard", lambda: TensorBoard(folder / "tensorboard"), say))
    if not quiet:
        groups = facts.get("groups", 1) > 1
        sinks.append(Dispensable("this display", lambda: ConsoleSink(updates, console(), groups), say))
    return Several(sinks)
