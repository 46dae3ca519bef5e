"""The command line: ``stalegrid train | verify | table | methods``.

Does not know: how anything is done; every option is a field of :class:`stalegrid.config.RunConfig`.
"""

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.console import Console
from rich.table import Table

from stalegrid import methods
from stalegrid.config import RunConfig
from stalegrid.errors import ConfigError, StalegridError
from stalegrid.grid import Grid
from stalegrid.observe.table import closed_form, ticks
from stalegrid.program import Program, Schedule
from stalegrid.version import __version__

TABLE_OPTIONS = ("method", "stages", "staleness", "micro_batches")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 well, 1 not, 2 for a wrong request."""
    parser, lists = _parser()
    # A terminated run ends its processes and removes its scratch files like an interrupted one.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    chosen = parser.parse_args(_bracket(sys.argv[1:] if arguments is None else arguments, lists))
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


def _verify(options: Namespace) -> int:
    from stalegrid.recipe import make_task
    from stalegrid.verify import verify

    config = _config(options)
    differences = verify(make_task(config), config)
    table = _plain("against the simulator", "largest difference of a parameter", "of a loss", "same bits")
    for d in differences:
        table.add_row(d.name, f"{d.parameter:g}", f"{d.loss:g}", "yes" if d.equal else "NO")
    Console().print(table)
    return 0 if all(d.equal for d in differences) else 1


def _table(options: Namespace) -> int:
    method = methods.find(options.method)
    stages = method.shape[1] if options.stages is None else options.stages
    if method.max_stages is not None and stages > method.max_stages:
        raise ConfigError(f"{method.name} does not cut the model (stages: {stages})")
    micro = method.micro_batches if options.micro_batches is None else options.micro_batches
    schedule = methods.schedule(method, stages, options.staleness, micro)
    updates = max(2, 8 // micro) if options.updates is None else options.updates
    program = Program(Grid(1, stages), schedule, updates)
    rows = ticks(program)
    table = _plain("stage \\ tick", *map(str, range(len(rows[0]))))
    for k, row in enumerate(rows):
        table.add_row(str(k), *row)
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(table)
    console.print(_forms(schedule))
    console.print(_busy(schedule), highlight=False)
    return 0


def _plain(*columns: str) -> Table:
    return Table(*columns, box=box.SIMPLE, pad_edge=False)


def _forms(schedule: Schedule) -> Table:
    table = _plain("stage", "staleness of update n", "at most", "batches in flight")
    for k in range(schedule.stages):
        table.add_row(str(k), closed_form(schedule, k), str(schedule.bound(k)), str(schedule.windows[k]))
    return table


def _busy(schedule: Schedule) -> str:
    if schedule.flush:
        return "all stages cannot be busy at once: every update waits for the pipeline to drain"
    if schedule.all_busy:
        return "all stages can be busy at once: staleness decreases by 1 or more at every stage"
    return "all stages cannot be busy at once: for that, staleness must decrease by 1 or more at every stage"


def _methods(options: Namespace) -> int:
    table = _plain("method", "staleness m_k, in batches", "view", "mixing", "S x K", "source")
    for m in methods.METHODS:
        table.add_row(m.name, m.formula, m.view, m.mixing, f"{m.shape[0]} x {m.shape[1]}", m.citation)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0


_COMMANDS = {"train": _train, "verify": _verify, "table": _table, "methods": _methods}


def _config(options: Namespace) -> RunConfig:
    return RunConfig(**{f.name: options[f.name] for f in fields(RunConfig) if f.name in options})


def _parser() -> tuple[ArgumentParser, dict[str, bool]]:
    everything = [f.name for f in fields(RunConfig)]
    verified = [name for name in everything if name not in ("out", "log_every", "engine")]
    parser = ArgumentParser(prog="stalegrid", description="Train on a grid of groups x stages, with bounded staleness.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subcommands(dest="command")
    lists: dict[str, bool] = {}
    for name, text, updates, options in (
        ("train", "train a model", None, everything),
        ("verify", "compare simulator, processes and plain loops, bit for bit", 12, verified),
        ("table", "print the program of each stage as a tick table", None, [*TABLE_OPTIONS, "updates"]),
        ("methods", "list the published methods", None, []),
    ):
        sub = ArgumentParser(description=text, usage=f"stalegrid {name} [options]")
        if "method" in options and name != "table":
            sub.add_argument("--config", action="config", help="YAML file of options")
        lists |= _add_options(sub, options, {} if updates is None else {"updates": updates})
        commands.add_subcommand(name, sub, help=text)
    return parser, lists


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


def _bracket(arguments: Sequence[str], lists: dict[str, bool]) -> list[str]:
    """Let people write lists as 4,2,0 or conv1,fc: the parser wants [4,2,0] or ["conv1","fc"]."""

    def bracketed(option: str, value: str) -> str:
        if value.startswith("["):
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
