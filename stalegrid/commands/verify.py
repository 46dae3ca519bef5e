"""Holds simulator, processes and plain loops against each other."""

from argparse import Namespace

from stalegrid.commands.options import EVERYTHING, Parser, add_fields, config_of, fields_of
from stalegrid.observe import make_console, plain

_LEFT_OUT = (
    "output.folder",
    "output.log_every",
    "output.trace",
    "engine.kind",
    "training.epochs",  # it counts updates
    "servers.deliveries",
    *fields_of("devices"),
)

ABOUT = "hold simulator, processes and plain loops against each other, bit for bit"
USAGE = "[options]"


def ask(parser: Parser) -> None:
    """Add the options."""
    add_fields(parser, [path for path in EVERYTHING if path not in _LEFT_OUT], {"training.updates": 12})


def run(options: Namespace) -> int:
    """Verify."""
    from stalegrid.recipes import make_task
    from stalegrid.studies import LOOPS, verify

    config = config_of(options)
    differences = verify(make_task(config), config)
    table = plain("against the simulator", "largest difference of a parameter", "of a loss", "same bits")
    for d in differences:
        table.add_row(d.name, f"{d.parameter:g}", f"{d.loss:g}", "yes" if d.equal else "NO")
    make_console().print(table)
    if not any(d.name == LOOPS for d in differences):
        make_console().print(
            "no plain loop computes this, such as a part of your own, a loss that is a sum and a count, late gradients "
            "of a tied parameter, or casts of weights that are not the forward's: engines were compared alone"
        )
    return 0 if all(d.equal for d in differences) else 1
