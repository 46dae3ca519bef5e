"""Trains on the simulator, and holds what the theory says of the run against what is measured while it trains."""

from argparse import Namespace

from stalegrid.commands.options import EVERYTHING, Parser, add_fields, config_of
from stalegrid.diagnosis import table
from stalegrid.errors import ConfigError
from stalegrid.observe import DIAGNOSIS, tell, wide

ABOUT = "train on the simulator, and measure what the theory says of the run beside its bounds"
USAGE = "[RUN.yaml] [options]"

_EVERY = 20


def ask(parser: Parser) -> None:
    """Add the options."""
    paths = [path for path in EVERYTHING if path != "engine.kind"]
    add_fields(parser, paths, {"output.diagnose": _EVERY, "engine.kind": "simulator"})


def run(options: Namespace) -> int:
    """Train and diagnose."""
    from stalegrid.recipes import make_task
    from stalegrid.runs import execute

    config = config_of(options)
    if not config.output.diagnose:
        raise ConfigError("no version would be diagnosed (diagnose: 0); say every how many updates one is")
    result = execute(make_task(config), config)
    if (last := result.summary.get(DIAGNOSIS)) is None:
        tell(f"the run was ended before a version was diagnosed (version: {result.summary['version']})")
        return 0
    wide().print(table(last))
    if result.folder is not None:
        tell(f"all versions are in {result.folder}; stalegrid report {result.folder} draws them")
    return 0
