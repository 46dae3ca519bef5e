"""Goes on with a run in another shape."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stalegrid.checkpoints import read_checkpoint
from stalegrid.commands.options import EVERYTHING, Parser, add_fields, config_of, content_of
from stalegrid.errors import ConfigError
from stalegrid.observe import CONFIG, tell

ABOUT = "go on with a run as options say otherwise: other groups, stages, method; in a folder of its own"
USAGE = "DIR --out NEW [options]"

FOLLOWS = {
    "grid.stages": ("grid.cuts", "method.staleness"),
    "grid.groups": ("mixing.kind",),
    "method.name": (
        "method.staleness",
        "method.view",
        "method.corrections",
        "method.micro_batches",
        "method.reduction",
        "mixing.kind",
    ),
    "method.queues": ("method.staleness",),
    "method.rule": ("method.corrections",),
    "training.updates": ("training.epochs",),
    "training.epochs": ("training.updates",),
}
"""What a run has chosen by itself, perhaps, and what it then followed from: where that changes, it is chosen anew."""


def ask(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("run", type=Path, metavar="DIR", help="folder of a run with checkpoints, or of one of them")
    add_fields(parser, EVERYTHING)


def run(options: Namespace) -> int:
    """Train."""
    from stalegrid.recipes import make_task
    from stalegrid.runs import execute, get_ready

    recorded = content_of(read_checkpoint(options.run).run / CONFIG)
    if "model.name" not in recorded:
        raise ConfigError(
            f"the run says nothing of its model and data (folder: {options.run}), it was started from Python; go on "
            f"with train(..., resume={str(options.run)!r}, reshape=True)"
        )
    said = {**{path: value for one in options.config for path, value in one.items()}, **vars(options)}
    options.config = [still_said(recorded, said), *options.config]
    config = config_of(options)
    get_ready(config)
    result = execute(make_task(config), config, resume=options.run, reshape=True)
    tell(f"results are in {result.folder}")
    return 0


def still_said(recorded: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stays of a recorded configuration where some options are given, by paths of fields."""
    changed = [path for path in FOLLOWS if path in said and said[path] != recorded.get(path)]
    anew = {path for one in changed for path in FOLLOWS[one]}
    return {path: value for path, value in recorded.items() if path not in anew}
