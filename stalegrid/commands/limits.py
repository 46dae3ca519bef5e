"""Says which learning rates a run bears, before it starts."""

from argparse import Namespace
from pathlib import Path

from stalegrid.commands.options import MODEL, Parser, add_fields, add_own, config_of, fields_of
from stalegrid.limits import BATCHES, PRODUCTS, lines, table
from stalegrid.observe import wide

ABOUT = "measure which learning rates every stage bears, as late as it is, before anything is trained"
USAGE = "[options]"

_ASKED = ("method", "grid", "mixing", "training")
_OTHERS = ("engine.device", "engine.threads", "devices.costs")


def ask(parser: Parser) -> None:
    """Add the options."""
    own = parser.add_argument_group("what is measured")
    add_own(own, "--batches", int, "batches of which the loss is taken", default=BATCHES)
    add_own(own, "--products", int, "products with the Hessian for every stage, at most", default=PRODUCTS)
    about = "file of a model at which curvature is measured, in place of the one that training begins with"
    add_own(own, "--start-from", Path | None, about)
    add_fields(parser, [*fields_of(*MODEL, *_ASKED), *_OTHERS])


def run(options: Namespace) -> int:
    """Measure."""
    from stalegrid.recipes import make_task
    from stalegrid.runs import find_limits

    config = config_of(options)
    found = find_limits(make_task(config), config, options.start_from, options.batches, options.products)
    console = wide()
    console.print(table(found))
    for line in lines(found):
        console.print(line, soft_wrap=True)
    return 0
