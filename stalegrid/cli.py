"""The command line: finds the command, runs it, and says what went wrong.

Does not know: what any command asks for or does.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stalegrid.commands import COMMANDS, Parser, expanded, shown
from stalegrid.engines import ending_in_order
from stalegrid.errors import ConfigError, Interrupted, StalegridError
from stalegrid.observe import tell
from stalegrid.version import __version__
from stalegrid.written import unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 well, 1 not, 2 for a wrong request, 75 for a run to go on with."""
    with ending_in_order(), _own_modules():
        _open_streams()
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(given: Sequence[str]) -> int:
    command = given[0] if given and given[0] in COMMANDS else ""
    try:
        parser, known = make_parser()
        words = _named(_checked(given))
        if command:
            words = [command, *expanded(words[1:], known[command])]
        options = parser.parse_args(words)
        if getattr(options, "print_config", False):
            sys.stdout.write(shown(options))
            return 0
        return COMMANDS[command].run(options)
    except ConfigError as error:
        _complain(command, error)
        return 2
    except Interrupted as error:
        _complain(command, error)
        return os.EX_TEMPFAIL  # what schedulers and supervisors of services take for: try again
    except StalegridError as error:
        _complain(command, f"{type(error).__name__}: {error}")
        return 1
    except KeyboardInterrupt:
        _complain(
            command, "interrupted; a run that had begun leaves its results so far in the folder of --out, if it has one"
        )
        return 130


@contextmanager
def _own_modules() -> Iterator[None]:
    """Let modules of the current folder be found, by workers too.

    Behind all others, unlike python -m: workers import everything anew, and a random.py that lies here would take the
    place of Python's own in them.  Behind this package too, which an editable installation has on no path.
    """
    try:
        here = os.getcwd()
    except OSError:  # the folder was removed
        here = ""
    added = [folder for folder in (str(Path(__file__).parents[1]), here) if folder and folder not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def _open_streams() -> None:
    """Let streams that were closed lead nowhere: the next file that is opened would have their number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
            if stream.fileno() == number:
                os.set_inheritable(number, True)  # workers need it too
            setattr(sys, name, stream)


def _complain(command: str, what: object) -> None:
    tell(f"stalegrid {command}: {what}" if command else f"stalegrid: {what}", "stderr")


def make_parser() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of all commands, and that of each."""
    parser = Parser(
        prog="stalegrid",
        description="Train on a grid of groups x stages, with bounded staleness.",
        epilog="stalegrid COMMAND --help lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    known: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        known[name] = commands.add_parser(
            name,
            help=command.ABOUT,
            description=f"{command.ABOUT[:1].upper()}{command.ABOUT[1:]}.",
            usage=f"stalegrid {name} {command.USAGE}",
        )
        command.ask(known[name])
    return parser, known


def _named(arguments: Sequence[str]) -> list[str]:
    """Let people write compare RUN.yaml: the parser wants --config RUN.yaml."""
    if len(arguments) > 1 and arguments[0] in ("compare", "diagnose") and not arguments[1].startswith("-"):
        return [arguments[0], "--config", *arguments[1:]]
    return list(arguments)


def _checked(arguments: Sequence[str]) -> Sequence[str]:
    """Refuse what the parser would fail at, or would not say plainly.

    Raises:
        ConfigError: there is no such command, or an argument is not text.
    """
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            raise ConfigError(f"an argument is not text in UTF-8 (argument: {argument!r}); write or rename it so")
    if not arguments:
        raise ConfigError(f"a command is expected; there are: {', '.join(COMMANDS)}")
    if not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise ConfigError(unknown("command", arguments[0], COMMANDS))
    return arguments
