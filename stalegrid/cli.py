"""The command line: one function a command.

Does not know: how anything is done; every option is a field of :class:`stalegrid.config.RunConfig`.
"""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from stalegrid import methods, planning, show
from stalegrid.config import DeviceSettings, RunConfig
from stalegrid.errors import ConfigError, StalegridError
from stalegrid.grid import Grid
from stalegrid.observe.table import closed_form, ticks
from stalegrid.planning import Candidate
from stalegrid.program import Program, Schedule
from stalegrid.show import plain
from stalegrid.timing.costs import CostTable
from stalegrid.version import __version__
from stalegrid.views import View, find_view

TABLE_OPTIONS = ("method", "stages", "staleness", "queues", "view", "micro_batches")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 well, 1 not, 2 for a wrong request."""
    parser, lists = _parser()
    # A terminated run ends its processes and removes its scratch files like an interrupted one.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    given = sys.argv[1:] if arguments is None else arguments
    chosen = parser.parse_args(_bracket(_named(given), lists))
    command = chosen.command
    try:
        return int(_COMMANDS[command](chosen[command]))
    except ConfigError as error:
        print(f"stalegrid {command}: {error}", file=sys.stderr)
        return 2
    except StalegridError as error:
        print(f"stalegrid {command}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stalegrid {command}: interrupted; what --out names holds the results so far", file=sys.stderr)
        return 130


def _train(options: Namespace) -> int:
    from stalegrid.recipe import make_task
    from stalegrid.train import execute

    config = _config(options)
    result = execute(make_task(config), config)
    where = "nothing is kept: name a folder with --out" if result.folder is None else f"results are in {result.folder}"
    Console().print(where, highlight=False, soft_wrap=True)
    return 0


def _compare(options: Namespace) -> int:
    from stalegrid.compare import compare
    from stalegrid.comparison import failures, table

    config = _config(options)
    if config.out is None:
        raise ConfigError("a comparison is kept in a folder (out: None); name one with --out DIR")
    made = compare(config, options.methods, options.seeds, config.out)
    headings, *rows = table(made)
    shown = plain(*headings)
    for column in shown.columns:
        column.overflow = "fold"
    for row in rows:
        shown.add_row(*row)
    console = _wide()
    console.print(shown)
    failed = failures(made)
    for line in (*(f"failed: {line}" for line in failed), f"table, numbers and plot are in {config.out}"):
        console.print(line, highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _verify(options: Namespace) -> int:
    from stalegrid.recipe import make_task
    from stalegrid.verify import verify

    config = _config(options)
    differences = verify(make_task(config), config)
    table = plain("against the simulator", "largest difference of a parameter", "of a loss", "same bits")
    for d in differences:
        table.add_row(d.name, f"{d.parameter:g}", f"{d.loss:g}", "yes" if d.equal else "NO")
    Console().print(table)
    return 0 if all(d.equal for d in differences) else 1


def _replay(options: Namespace) -> int:
    from stalegrid.recipe import make_task
    from stalegrid.replay import recorded_config, replay

    config = recorded_config(options.run)
    made = replay(make_task(config), config, options.run)
    same = "the same bits" if made.equal else f"OTHER bits (largest difference: {made.difference:g})"
    Console().print(f"version {made.version}: the replay has {same} as the run", highlight=False, soft_wrap=True)
    return 0 if made.equal else 1


def _profile(options: Namespace) -> int:
    from stalegrid.profile import profile
    from stalegrid.recipe import make_task

    config = _config(options)
    if options.out is not None and (options.out.exists() or not options.out.parent.is_dir()):
        raise ConfigError(f"the file exists, or its folder does not (out: {options.out}); name another one")
    made = profile(make_task(config), config, options.parts, options.copies)
    console = _wide()
    console.print(show.costs(made))
    if options.out is not None:
        made.write(options.out)
        console.print(f"costs are in {options.out}; give them with --costs {options.out}", highlight=False)
    return 0


def _plan(options: Namespace) -> int:
    from stalegrid.profile import profile
    from stalegrid.recipe import make_task

    config = _config(options)
    if options.measure and (config.link or config.lateral_link or config.outages):
        raise ConfigError(
            f"links and outages are in virtual time only (measure: {options.measure}); leave out --measure, or them"
        )
    if config.costs is None:
        # As many at once as there will be here: they compete for caches and memory as the units of a run do.
        copies = options.copies or min(options.devices, max(1, (os.cpu_count() or 1) // config.threads))
        table = profile(make_task(config), config, options.parts, copies)
    else:
        table = CostTable.read(config.costs)
        config = dataclasses.replace(config, batch_size=table.batch_size)
    memory = None if options.memory is None else round(options.memory * 1e9)
    states = planning.STATES[config.optimizer or "sgd"]
    names = planning.USUAL if options.methods is None else tuple(options.methods)
    question = planning.Question(table, options.devices, names, memory, states)
    found = planning.fitting(planning.candidates(question, config), memory)
    best, why = planning.recommend(found, config.within)
    shown = found if options.all else planning.shortened(found, best)
    chosen = [i for i, c in enumerate(shown) if i < options.measure or (options.measure and c is best)]
    measured = {i: _measured(config, shown[i], table, options.measure_updates) for i in chosen}
    console = _wide()
    console.print(show.candidates(shown, best, measured))
    for line in (_PLANNED, f"* {why}:", f"  {show.command(best)}"):
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _measured(config: RunConfig, candidate: Candidate, table: CostTable, updates: int) -> float:
    """Return milliseconds a batch on real processes: of the model, or of sleep where only its costs are known."""
    from stalegrid.recipe import make_task
    from stalegrid.rehearsal import emulate, rehearse

    if config.costs is None:
        return rehearse(make_task(config), candidate, updates)
    return emulate(candidate, table, updates)


_PLANNED = """\
Shares of a device's time: busy with actions, sending (handling messages, or waiting for one that is under way) and
waiting. Staleness of each stage, in updates. MB: parameters, gradients, optimizer state and batches in flight."""


def _report(options: Namespace) -> int:
    from stalegrid.observe.report import write_report

    Console().print(f"the report is {write_report(options.run)}", highlight=False, soft_wrap=True)
    return 0


def _bench(options: Namespace) -> int:
    from stalegrid.bench.rows import bench

    bench(options.rows, options.turns, options.out, options.data_dir)
    return 0


def _wide() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200)


def _table(options: Namespace) -> int:
    method = methods.find(options.method)
    stages = method.shape[1] if options.stages is None else options.stages
    if method.max_stages is not None and stages > method.max_stages:
        raise ConfigError(f"{method.name} does not cut the model (stages: {stages})")
    micro = method.micro_batches if options.micro_batches is None else options.micro_batches
    view = find_view(options.view or method.view)
    schedule = methods.schedule(method, stages, options.staleness, options.queues, micro, view.delay)
    view.check(schedule)
    updates = max(2, 8 // micro) if options.updates is None else options.updates
    program = Program(Grid(1, stages), schedule, updates)
    rows = ticks(program)
    table = plain("stage \\ tick", *map(str, range(len(rows[0]))))
    for k, row in enumerate(rows):
        table.add_row(str(k), *row)
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(table)
    console.print(_forms(schedule, view))
    console.print(_busy(schedule), highlight=False)
    return 0


def _forms(schedule: Schedule, view: type[View]) -> Table:
    waiting = ("waiting at the start", "later")
    heads = ("stage", "staleness of update n", "at most", "graphs", "inputs", "weight copies", *waiting)
    table = plain(*heads)
    for k in range(schedule.stages):
        kept = view.kept(schedule, k)
        numbers = (schedule.bound(k), kept.graphs, kept.inputs, kept.copies)
        queue = (schedule.in_flight(k - 1) if k else 0, schedule.queued(k))
        table.add_row(str(k), closed_form(schedule, k), *map(str, (*numbers, *queue)))
    return table


def _busy(schedule: Schedule) -> str:
    if schedule.flush:
        return "all stages cannot be busy at once: every update waits for the pipeline to drain"
    if schedule.all_busy:
        return "all stages can be busy at once: staleness decreases by 1 or more at every stage"
    return "all stages cannot be busy at once: for that, staleness must decrease by 1 or more at every stage"


def _methods(options: Namespace) -> int:
    Grid(1, options.stages)
    settings = plain("method", "staleness m_k, in batches", "M", "view", "corrections", "mixing", "source")
    heads = (f"at K = {options.stages}, per stage:", "staleness of update n", "graphs", "inputs", "weight copies")
    sizes = plain(*heads)
    for m in methods.METHODS:
        corrections = ", ".join(m.corrections) or "none"
        settings.add_row(m.name, m.formula, str(m.micro_batches), m.view, corrections, m.mixing, m.citation)
        sizes.add_row(m.name, *_sizes(m, 1 if m.max_stages == 1 else options.stages))
    console = _wide()
    console.print(settings)
    console.print(sizes)
    console.print(_HELD, highlight=False)
    console.print(_served())
    return 0


def _served() -> Table:
    table = plain("learners and parameter servers", "gradients an update", "corrections", "staleness", "source")
    for m in methods.SERVER_METHODS:
        splits = "n of --softsync" if m.free else "the learners" if m.splits is None else str(m.splits)
        bound = "0" if m.synchronous else "about n; bound it with --max-staleness"
        corrections = ", ".join(m.corrections) or "none"
        table.add_row(m.name, f"learners / {splits}", corrections, bound, m.citation)
    return table


_HELD = """\
A graph is what one batch saves for its backward; an input is what a stage received of one batch; a weight copy is a
vector as large as the stage's parameters. Measuring the gap keeps one more copy where the view keeps no old version
(switch it off with --gap false)."""


def _sizes(method: methods.Method, stages: int) -> tuple[str, ...]:
    """Return what every stage of a method is stale by and holds at most, each number of the stages in order."""
    view = find_view(method.view)
    schedule = methods.schedule(method, stages, None, None, method.micro_batches, view.delay)
    try:
        view.check(schedule)
    except ConfigError:
        return (f"needs another M than {method.micro_batches}", "-", "-", "-")
    kept = [view.kept(schedule, k) for k in range(stages)]
    columns = (
        [closed_form(schedule, k) for k in range(stages)],
        [k.graphs for k in kept],
        [k.inputs for k in kept],
        [k.copies for k in kept],
    )
    return tuple("  ".join(map(str, column)) for column in columns)


_COMMANDS = {
    "train": _train,
    "compare": _compare,
    "verify": _verify,
    "replay": _replay,
    "profile": _profile,
    "plan": _plan,
    "report": _report,
    "table": _table,
    "methods": _methods,
    "bench": _bench,
}

_MODEL = ("data", "data_dir", "model", "augment", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "schedule")
_MACHINE = ("batch_size", "device", "dtype", "threads", "seed", "cuts")
_EXCHANGE = ("mixing", "topology", "edges", "matrix", "period", "lag")
_DISTURBED = ("costs", "slow", "jitter", "stalls", "link", "lateral_link", "outages")
_PIPELINE = ("groups", "stages", "staleness", "queues", "within", "view", "micro_batches")


def _config(options: Namespace) -> RunConfig:
    return RunConfig(**{f.name: options[f.name] for f in fields(RunConfig) if f.name in options})


def _parser() -> tuple[ArgumentParser, dict[str, bool]]:
    everything = [f.name for f in fields(RunConfig)]
    timed = [f.name for f in fields(DeviceSettings)]
    verified = [
        name for name in everything if name not in ("out", "log_every", "engine", "trace", "deliveries", *timed)
    ]
    parser = ArgumentParser(prog="stalegrid", description="Train on a grid of groups x stages, with bounded staleness.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subcommands(dest="command")
    lists: dict[str, bool] = {}
    for name, text, updates, options in (
        ("train", "train a model", None, everything),
        ("compare", "train several methods on the same samples from the same weights", None, everything),
        ("verify", "hold simulator, processes and plain loops against each other, bit for bit", 12, verified),
        ("replay", "repeat a run with parameter servers in the order that it recorded, to the same bits", None, []),
        ("profile", "measure what the parts of a model cost on this machine", None, [*_MODEL, *_MACHINE]),
        (
            "plan",
            "estimate which grid, method and staleness suit given devices",
            None,
            [*_MODEL, *_MACHINE, *_EXCHANGE, *_DISTURBED, *_PIPELINE],
        ),
        ("report", "write a run's report.html", None, []),
        ("table", "print the program of each stage as a tick table", None, [*TABLE_OPTIONS, "updates"]),
        ("methods", "list the published methods, how stale they are and what they hold", None, []),
        ("bench", "measure speed, as ratios against peers and ideals", None, []),
    ):
        sub = ArgumentParser(description=text, usage=f"stalegrid {name} [options]")
        if "model" in options:
            sub.add_argument("--config", action="config", help="YAML file of options")
        if name == "methods":
            sub.add_argument("--stages", type=int, default=4, help="K, for which staleness and memory are shown")
        if name == "compare":
            sub.usage = "stalegrid compare [RUN.yaml] --methods A,B --out DIR [options]"
            sub.add_argument(
                "--methods", type=list[str], required=True, help="what to compare, such as sgd,1f1b,pham-ahn"
            )
            sub.add_argument("--seeds", type=int, default=3, help="how many, from the one of --seed on")
            lists["--methods"] = True
        if name in ("profile", "plan"):
            sub.add_argument("--parts", type=int, default=16, help="parts in which the model is measured, at most")
            sub.add_argument(
                "--copies",
                type=int,
                default=1 if name == "profile" else None,
                help="processes that measure at once; for a plan as many as its devices, if there are cores for them",
            )
        if name == "profile":
            sub.add_argument("--out", type=Path, help="file for the costs")
        if name == "plan":
            _add_plan_options(sub)
            lists["--methods"] = True
        if name in ("report", "replay"):
            sub.usage = f"stalegrid {name} DIR"
            sub.add_argument("run", type=Path, help="folder of a run")
        if name == "bench":
            sub.usage = "stalegrid bench [ROW ...] [options]"
            sub.add_argument("rows", type=str, nargs="*", help="which; all if left out, and a wrong name lists them")
            sub.add_argument("--turns", type=int, default=5, help="how often each competitor is measured, in turn")
            sub.add_argument("--out", type=Path, default=Path("bench/results.json"), help="file; keeps its other rows")
            sub.add_argument("--data-dir", type=Path, default=Path("data"), help="folder with CIFAR-10's files")
        lists |= _add_options(sub, options, {} if updates is None else {"updates": updates})
        commands.add_subcommand(name, sub, help=text)
    return parser, lists


def _add_plan_options(parser: ArgumentParser) -> None:
    parser.add_argument("--devices", type=int, required=True, help="how many there are")
    parser.add_argument("--methods", type=list[str], help="what to compare; a usual choice if left out")
    parser.add_argument("--memory", type=float, help="GB that a device has for training")
    parser.add_argument("--all", type=bool, default=False, help="show all candidates, not the best of each method")
    parser.add_argument("--measure", type=int, default=0, help="run so many of the fastest on real processes")
    parser.add_argument("--measure-updates", type=int, default=40, help="updates of each such run")


def _add_options(parser: ArgumentParser, names: Sequence[str], defaults: dict[str, Any]) -> dict[str, bool]:
    """Add fields of the configuration as options; return those that are lists, and whether of words."""
    hints, texts = get_type_hints(RunConfig), _help()
    lists: dict[str, bool] = {}
    for f in fields(RunConfig):
        if f.name in names:
            option = "--" + f.name.replace("_", "-")
            default = defaults.get(f.name, f.default)
            parser.add_argument(option, type=hints[f.name], default=default, help=texts[f.name])
            if "list" in str(hints[f.name]):
                lists[option] = "str" in str(hints[f.name])
    return lists


def _help() -> dict[str, str]:
    docs = [docstring_parser.parse(c.__doc__ or "") for c in reversed(RunConfig.__mro__)]
    return {p.arg_name: (p.description or "").replace("%", "%%") for doc in docs for p in doc.params}


def _named(arguments: Sequence[str]) -> list[str]:
    """Let people write compare RUN.yaml: the parser wants --config RUN.yaml."""
    if len(arguments) > 1 and arguments[0] == "compare" and not arguments[1].startswith("-"):
        return ["compare", "--config", *arguments[1:]]
    return list(arguments)


def _bracket(arguments: Sequence[str], lists: dict[str, bool]) -> list[str]:
    """Let people write lists as 4,2,0 or conv1,fc: the parser wants [4,2,0] or ["conv1","fc"]."""

    def bracketed(option: str, value: str) -> str:
        if value.startswith("[") or value == "auto":
            return value
        return json.dumps(value.split(",")) if lists[option] else f"[{value}]"

    found: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if equals and option in lists:
            argument = f"{option}={bracketed(option, value)}"
        elif before in lists:
            argument = bracketed(before, argument)
        found.append(argument)
    return found
