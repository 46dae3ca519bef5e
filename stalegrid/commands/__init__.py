"""What each command asks for and says, one file each.

Does not know: how anything is done.
"""

from stalegrid.commands import (
    compare,
    diagnose,
    doctor,
    export,
    join,
    limits,
    methods,
    plan,
    profile,
    replay,
    report,
    reshape,
    resume,
    table,
    train,
    verify,
)
from stalegrid.commands.options import Command, Parser, shown
from stalegrid.commands.words import expanded

__all__ = ["COMMANDS", "Parser", "expanded", "shown"]

COMMANDS: dict[str, Command] = {
    "train": train,
    "resume": resume,
    "compare": compare,
    "verify": verify,
    "replay": replay,
    "join": join,
    "reshape": reshape,
    "export": export,
    "doctor": doctor,
    "profile": profile,
    "plan": plan,
    "limits": limits,
    "diagnose": diagnose,
    "report": report,
    "table": table,
    "methods": methods,
}
"""By name, in the order in which they are listed."""
