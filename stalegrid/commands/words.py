"""Arguments of a command as its parser wants them: options that it knows, each in one word with its value.

Does not know: what any option does.
"""

from argparse import Action
from collections.abc import Sequence

from stalegrid.commands.options import GROUPS, MERGED, Parser
from stalegrid.errors import ConfigError
from stalegrid.written import nearest, parse_yaml, to_yaml

ARGS = ".args"
"""What ends the options whose names go on with those of a factory's arguments."""


def expanded(arguments: Sequence[str], parser: Parser) -> list[str]:
    """Return arguments as a parser wants them.

    Args:
        arguments: of a command.
        parser: of the command.

    Raises:
        ConfigError: there is no such option, or one has no value.
    """
    found: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            found.append(word)
            continue
        name, equals, value = word.partition("=")
        option, inner = _parted(name)
        action = _known(option, name, parser)
        if not equals and rest and _is_value(rest[0], action):
            equals, value = "=", rest.pop(0)
        if not equals and (inner or action.nargs is None):
            raise ConfigError(f"an option needs a value (option: {name}); see {parser.prog} --help")
        # In one word, as a value may begin like an option: -1,0.
        found.append(f"{option}{equals}{_argument(name, inner, value) if inner else value}")
    return found


def _parted(name: str) -> tuple[str, list[str]]:
    """Return an option, and where its value belongs among a factory's arguments; people write - and _ alike."""
    option, dot, inner = name.partition(f"{ARGS}.")
    path = inner.replace("-", "_").split(".") if dot else []
    return option.replace("_", "-") + (ARGS if dot else ""), path


def _known(option: str, name: str, parser: Parser) -> Action:
    actions = parser._option_string_actions
    if option in actions:
        return actions[option]
    group = option.removeprefix("--").partition(".")[0]
    if group in GROUPS and "." in option:
        shown = {
            bare: sign for bare, sign in _shown(parser).items() if actions[f"--{bare}"].dest.startswith(f"{group}.")
        }
        if shown:
            raise ConfigError(
                f"unknown option of {group} (option: {name!r}); {nearest(option[2:], shown)}there are: "
                f"{', '.join(dict.fromkeys(shown.values()))}"
            )
    raise ConfigError(
        f"unknown option (option: {name!r}); {nearest(option[2:], _shown(parser))}see {parser.prog} --help"
    )


def _shown(parser: Parser) -> dict[str, str]:
    """Return the options of a command under the names that are shown, by all their names without dashes."""
    options = parser._option_string_actions.items()
    return {name[2:]: action.option_strings[0] for name, action in options if name.startswith("--")}


def _is_value(word: str, action: Action) -> bool:
    if action.nargs == "?":  # true without a value
        return word in ("true", "false", "null")
    return action.nargs is None and not word.startswith("--")


def _argument(name: str, path: Sequence[str], text: str) -> str:
    """Return a factory's argument as a mapping that is joined with others."""
    value = parse_yaml(text, f"{name}: {text!r}") if text else text
    for part in reversed(path):
        value = {part: value}
    return MERGED + to_yaml(value)
