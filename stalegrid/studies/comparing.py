"""Several methods trained on the same samples from the same weights, and what came of them side by side.

Does not know: how a method trains, how results are shown.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stalegrid.consensus import NONE, find_mixing
from stalegrid.engines import torchrun
from stalegrid.errors import ConfigError, TrainingError
from stalegrid.methods import MethodSettings, find_grid
from stalegrid.observe import Record, tell
from stalegrid.plans import Plan
from stalegrid.programs import Grid
from stalegrid.recipes import RunConfig, make_task
from stalegrid.report import check_pictures
from stalegrid.runs import execute, prepare
from stalegrid.studies.comparison import FAILURE, Run, write
from stalegrid.written import checked, exists, read_yaml, text_of, to_yaml, write_text

OWN = ("staleness", "queues", "view", "corrections", "micro_batches", "reduction")
"""What a configuration says about its own method and no other."""

FREE = ("engine.processes", "engine.deadline")
"""What changes no number, and may change when a comparison goes on."""

SEEDS = 1000
"""Of a comparison, at most."""

COMPARISON = "comparison.yaml"
"""Says how all runs of a folder are trained."""


def compare(base: RunConfig, methods: Sequence[str], seeds: int, out: Path, *, quiet: bool = False) -> Record:
    """Train each method with each seed, and write a table, its numbers and a plot after every run.

    Where the folder holds the same comparison already, finished runs are kept and what is missing is trained.

    Args:
        base: how all are trained; its staleness, view, corrections and micro-batches are for its own method alone, its
            mixing also for methods that say nothing of groups.
        methods: names.
        seeds: how many, from the seed of ``base`` on.
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
    write_text(out / COMPARISON, to_yaml(base.plain()))
    runs = [
        Run(_seeded(configuration(base, name), seed), out / f"{find_grid(name).name}-{seed}", updates)
        for seed in range(base.training.seed, base.training.seed + seeds)
        for name in methods
    ]
    say = _mute if quiet else tell
    for line in _own(base):
        say(line)
    comparison = write(base, runs, out)
    for number, run in enumerate(runs, 1):
        title = f"run {number} of {len(runs)}: {run.method}, seed {run.config.training.seed}"
        if run.summary() or run.failure():
            say(f"{title}: is finished already")
            continue
        say(title)
        _train(run, quiet)
        if reason := run.failure():
            say(f"{title} failed: {reason}")
        comparison = write(base, runs, out)
    return comparison


def _of_its_own(asked: MethodSettings, method: str) -> MethodSettings:
    left: dict[str, Any] = dict.fromkeys(OWN)
    return replace(asked, name=method, **left)


def _seeded(config: RunConfig, seed: int) -> RunConfig:
    return replace(config, training=replace(config.training, seed=seed))


def configuration(base: RunConfig, method: str) -> RunConfig:
    """Return how a method is trained so that each update sees the samples that it sees on the grid of ``base``.

    Args:
        base: with groups and stages.
        method: its name; where it cannot have so many groups or stages, it has fewer, and larger batches.
    """
    whole, limits = base.grid, find_grid(method)
    assert whole.groups is not None
    assert whole.stages is not None
    groups = whole.groups if limits.max_groups is None else math.gcd(whole.groups, limits.max_groups)
    stages = whole.stages if limits.max_stages is None else min(whole.stages, limits.max_stages)
    its_own = limits == find_grid(base.method.name)
    own = base.method if its_own else _of_its_own(base.method, method)
    mixing = base.mixing
    if not its_own and find_mixing(limits.mixing) is not NONE:
        mixing = replace(mixing, kind=None)
    if groups < whole.groups:
        mixing = replace(mixing, topology=None)
    processes = base.engine.processes
    if processes is not None and groups * stages < whole.groups * whole.stages:
        processes = math.gcd(processes, groups * stages)
    return replace(
        base,
        method=own,
        grid=replace(whole, groups=groups, stages=stages, cuts=whole.cuts if stages == whole.stages else None),
        mixing=mixing,
        training=replace(base.training, batch_size=_merged(base.training.sizes(whole.groups), groups)),
        engine=replace(base.engine, processes=processes),
        # Some methods have no stages to measure, and the numbers are the same.
        output=replace(base.output, folder=None, evaluation="auto"),
    )


def _merged(sizes: Sequence[int], groups: int) -> int | list[int]:
    """Return the batches of fewer groups, each of which takes what several took."""
    several = len(sizes) // groups
    found = [sum(sizes[s : s + several]) for s in range(0, len(sizes), several)]
    return found[0] if len(set(found)) == 1 else found


def _check(base: RunConfig, methods: Sequence[str], seeds: int) -> None:
    for name in (base.method.name, *methods):
        find_grid(name)
    shown = ",".join(methods)
    if not methods or len({find_grid(name).name for name in methods}) < len(methods):
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


def _continued(base: RunConfig, out: Path) -> RunConfig:
    """Settle what was settled when the folder was made, and refuse a folder of anything else."""
    if not exists(out):
        return base
    if not exists(out / COMPARISON):
        raise ConfigError(f"the output folder exists and is of no comparison (out: {out}); name a new one or remove it")
    before = RunConfig.of(checked(read_yaml(out / COMPARISON), {}, out / COMPARISON))
    settled = {name: value for name, value in vars(before.grid).items() if getattr(base.grid, name) is None}
    base = replace(base, grid=replace(base.grid, **settled))
    there, here = _flat(before), _flat(base)
    for name in sorted(there.keys() | here.keys()):
        if name not in FREE and there.get(name) != here.get(name):
            raise ConfigError(
                f"the output folder holds runs of another configuration (out: {out}, {name}: {there.get(name)} there, "
                f"{here.get(name)} here); name a new folder, or ask for the same"
            )
    return base


def _flat(config: RunConfig) -> Record:
    said = config.plain()
    return {f"{group}.{name}": value for group, fields in said.items() for name, value in fields.items()}


def _settle(base: RunConfig, methods: Sequence[str]) -> tuple[RunConfig, int]:
    """Check every method, settle grid and cuts for all of them, and return N too."""
    shapes = [find_grid(name).shape for name in methods]
    groups = max(s for s, _ in shapes) if base.grid.groups is None else base.grid.groups
    stages = max(k for _, k in shapes) if base.grid.stages is None else base.grid.stages
    grid = Grid(groups, stages)
    base = replace(base, grid=replace(base.grid, groups=grid.groups, stages=grid.stages))
    updates = 0
    for name in methods:
        config = configuration(base, name)
        try:
            plan = prepare(make_task(config), config)
        except ConfigError as problem:
            raise ConfigError(f"{name} cannot be compared: {problem}") from problem
        if config.grid.stages == stages:
            assert isinstance(plan, Plan)
            base = replace(base, grid=replace(base.grid, cuts=list(plan.partition.names)))
        updates = plan.program.updates
    return base, updates


def _mute(line: str) -> None:
    """Say nothing."""


def _own(base: RunConfig) -> list[str]:
    """Say what is not for all methods."""
    said, name = vars(base.method), text_of(base.method.name)
    own = ", ".join(f"{field} {text_of(said[field])}" for field in OWN if said[field] is not None)
    lines = [f"for {name} alone: {own}; every other method has its own"] if own else []
    if base.mixing.kind is not None:
        kind = text_of(base.mixing.kind)
        lines.append(f"for {name} and methods that say nothing of groups: mixing {kind}")
    return lines


def _train(run: Run, quiet: bool) -> None:
    """Train a run from the start; that its numbers go wrong is a result too."""
    if run.folder.exists():
        shutil.rmtree(run.folder)
    try:
        execute(
            make_task(run.config),
            replace(run.config, output=replace(run.config.output, folder=run.folder)),
            quiet=quiet,
        )
    except TrainingError as problem:
        write_text(run.folder / FAILURE, f"{type(problem).__name__}: {problem}\n")
