"""Looks at the hosts of a run and says what to change."""

from argparse import Namespace

from stalegrid.commands.options import EVERYTHING, Parser, add_fields, config_of
from stalegrid.observe import tell, wide

ABOUT = "say what to change on this host, or under torchrun on all hosts, before a run"
USAGE = "[options]"


def ask(parser: Parser) -> None:
    """Add the options: those of a run, whose model and data are then looked at too."""
    add_fields(parser, EVERYTHING)


def run(options: Namespace) -> int:
    """Examine."""
    from stalegrid.doctor import examine, table, words
    from stalegrid.plans import Task
    from stalegrid.recipes import make_task

    config = config_of(options)
    asked = len(options.config) > 1 or any(path in vars(options) for path in EVERYTHING if path != "engine.deadline")

    def make() -> tuple[str, Task]:
        return config.common(), make_task(config)

    found = examine(config.engine.deadline, make if asked else None)
    if found.rank == 0:
        wide().print(table(found))
        for line in words(found):
            tell(line)
    return 0 if found.fine else 1
