"""Several methods trained on the same samples from the same weights, and what came of them side by side.

Does not know: how a method trains, how results are shown.
"""

import dataclasses
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stalegrid.config import RunConfig
from stalegrid.engines.distributed import torchrun
from stalegrid.errors import ConfigError, TrainingError
from stalegrid.methods.methods import NO_MIXING, find
from stalegrid.observe.records import Record
from stalegrid.observe.stream import tell
from stalegrid.plans.plan import Plan
from stalegrid.programs.grid import Grid
from stalegrid.recipes.recipe import make_task
from stalegrid.report.pictures import check_pictures
from stalegrid.studies.comparison import FAILURE, Run, write
from stalegrid.train import execute, prepare
from stalegrid.written.files import exists, write_text
from stalegrid.written.kept import checked, read_yaml, to_yaml

OWN = ("staleness", "queues", "view", "corrections", "micro_batches")
"""What a configuration says about its own method and no other."""

FREE = ("processes", "deadline")
"""What changes no number, and may change when a comparison goes on."""

SEEDS = 1000
"""Of a comparison, at most."""

SETTLED = ("groups", "stages", "cuts")
"""What a comparison settles once for all methods, where the user has not."""


def compare(base: RunConfig, methods: Sequence[str], seeds: int, out: Path, *, quiet: bool = False) -> Record:
    """Train each method with each seed, and write a table, its numbers and a plot after every run.

    Where the folder holds the same comparison already, finished runs are kept and what is missing is trained.

    Args:
        base: how all are trained; its staleness, view, corrections and micro-batches are for its own method alone, its
            mixing also for methods that say nothing of groups.
        methods: names.
        seeds: how many, from ``base.seed`` on.
        out: folder of the comparison.
        quiet: whether to print nothing.

    Returns:
        The content of ``comparison.json``.

    Raises:
        ConfigError: a method cannot be run like this, or the folder holds something else; nothing was trained.
        EngineError: a process died or stalled; the same command goes on from there.
    """
    _check(base, methods, seeds)
    base, updates = _settle(_continued(base, out), methods)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "comparison.yaml", to_yaml(_plain(base)))
    runs = [
        Run(dataclasses.replace(configuration(base, name), seed=seed), out / f"{name}-{seed}", updates)
        for seed in range(base.seed, base.seed + seeds)
        for name in methods
    ]
    say = _mute if quiet else tell
    for line in _own(base):
        say(line)
    comparison = write(base, runs, out)
    for number, run in enumerate(runs, 1):
        title = f"run {number} of {len(runs)}: {run.config.method}, seed {run.config.seed}"
        if run.summary() or run.failure():
            say(f"{title}: is finished already")
            continue
        say(title)
        _train(run, quiet)
        if reason := run.failure():
            say(f"{title} failed: {reason}")
        comparison = write(base, runs, out)
    return comparison


def configuration(base: RunConfig, method: str) -> RunConfig:
    """Return how a method is trained so that each update sees the samples that it sees on the grid of ``base``.

    Args:
        base: with groups and stages.
        method: its name; where it cannot have so many groups or stages, it has fewer, and larger batches.
    """
    assert base.groups is not None
    assert base.stages is not None
    limits = find(method)
    groups = base.groups if limits.max_groups is None else math.gcd(base.groups, limits.max_groups)
    stages = base.stages if limits.max_stages is None else min(base.stages, limits.max_stages)
    changed: dict[str, Any] = {"method": method, "groups": groups, "stages": stages, "out": None}
    changed["batch_size"] = base.batch_size * (base.groups // groups)
    if method != base.method:
        changed |= dict.fromkeys(OWN if limits.mixing == NO_MIXING else (*OWN, "mixing"))
    if groups < base.groups:
        changed |= {"topology": "ring", "edges": None, "matrix": None}
    if stages < base.stages:
        changed["cuts"] = None
    if base.processes is not None and groups * stages < base.groups * base.stages:
        changed["processes"] = math.gcd(base.processes, groups * stages)
    return dataclasses.replace(base, **changed)


def _check(base: RunConfig, methods: Sequence[str], seeds: int) -> None:
    for name in (base.method, *methods):
        find(name)
    shown = ",".join(methods)
    if not methods or len(set(methods)) < len(methods):
        raise ConfigError(f"a comparison needs methods, each named once (methods: {shown!r})")
    if seeds < 1:
        raise ConfigError(f"a comparison needs at least one seed (seeds: {seeds})")
    if seeds > SEEDS:
        raise ConfigError(f"a comparison has at most {SEEDS} seeds (seeds: {seeds})")
    if torchrun.active():
        raise ConfigError(
            "a comparison starts its own processes (RANK and WORLD_SIZE are set); run it without torchrun"
        )
    check_pictures("the plot")


def _plain(base: RunConfig) -> Record:
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(base).items() if k != "out"}


def _continued(base: RunConfig, out: Path) -> RunConfig:
    """Settle what was settled when the folder was made, and refuse a folder of anything else."""
    if not exists(out):
        return base
    if not exists(out / "comparison.yaml"):
        raise ConfigError(f"the output folder exists and is of no comparison (out: {out}); name a new one or remove it")
    before = checked(read_yaml(out / "comparison.yaml"), {}, out / "comparison.yaml")
    base = dataclasses.replace(base, **{name: before.get(name) for name in SETTLED if getattr(base, name) is None})
    for name, value in _plain(base).items():
        if name not in FREE and before.get(name) != value:
            raise ConfigError(
                f"the output folder holds runs of another configuration (out: {out}, {name}: {before.get(name)} there, "
                f"{value} here); name a new folder, or ask for the same"
            )
    return base


def _settle(base: RunConfig, methods: Sequence[str]) -> tuple[RunConfig, int]:
    """Check every method, settle grid and cuts for all of them, and return N too."""
    shapes = [find(name).shape for name in methods]
    groups = max(s for s, _ in shapes) if base.groups is None else base.groups
    stages = max(k for _, k in shapes) if base.stages is None else base.stages
    grid = Grid(groups, stages)
    base = dataclasses.replace(base, groups=grid.groups, stages=grid.stages)
    updates = 0
    for name in methods:
        config = configuration(base, name)
        try:
            plan = prepare(make_task(config), config)
        except ConfigError as problem:
            raise ConfigError(f"{name} cannot be compared: {problem}") from problem
        if config.stages == base.stages:
            assert isinstance(plan, Plan)
            base = dataclasses.replace(base, cuts=list(plan.partition.names))
        updates = plan.program.updates
    return base, updates


def _mute(line: str) -> None:
    """Say nothing."""


def _own(base: RunConfig) -> list[str]:
    """Say what is not for all methods."""
    own = ", ".join(f"{name} {getattr(base, name)}" for name in OWN if getattr(base, name) is not None)
    lines = [f"for {base.method} alone: {own}; every other method has its own"] if own else []
    if base.mixing is not None:
        lines.append(f"for {base.method} and methods that say nothing of groups: mixing {base.mixing}")
    return lines


def _train(run: Run, quiet: bool) -> None:
    """Train a run from the start; that its numbers go wrong is a result too."""
    if run.folder.exists():
        shutil.rmtree(run.folder)
    try:
        execute(make_task(run.config), dataclasses.replace(run.config, out=run.folder), quiet=quiet)
    except TrainingError as problem:
        write_text(run.folder / FAILURE, f"{type(problem).__name__}: {problem}\n")
