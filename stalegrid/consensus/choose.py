"""What groups exchange and when, settled from what was asked for.

Does not know: methods, stages' tensors, engines.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from stalegrid.consensus.directed import PushMatrix
from stalegrid.consensus.lag_rules import check_fits
from stalegrid.consensus.matrices import MixingMatrix, Topology
from stalegrid.consensus.mixing import Mixing, Turns, numbers_of
from stalegrid.consensus.mixings import AVERAGINGS, MIXINGS, NONE, has_name
from stalegrid.consensus.pairs import RANDOM_PAIRS, RandomPairs
from stalegrid.consensus.settings import MixingSettings
from stalegrid.consensus.usual import UsualTurns
from stalegrid.errors import ConfigError
from stalegrid.written import is_path, name_of, said, text_of, unknown, value_of

Kind = str | Mixing | type[Mixing]

USUAL = UsualTurns()


def find_mixing(kind: Kind) -> Mixing:
    """Return a mixing.

    Args:
        kind: its name, with numbers that it has, as in ``NAME,rate=0.5``; the path ``PACKAGE.MODULE:NAME`` of one; or
            the mixing itself.

    Raises:
        ConfigError: there is none of that name, it is no mixing, it cannot be made, or it would be taken for another.
    """
    found = value_of(kind, "mixing") if is_path(kind) else kind
    if isinstance(found, type) and issubclass(found, Mixing):
        found = _made(found)
    if isinstance(found, Mixing):
        return _told_apart(found)
    if found is not kind or not isinstance(found, str):
        raise ConfigError(
            f"this is no mixing (mixing: {text_of(kind)}, it is: {type(found).__name__}); inherit from stalegrid.Mixing"
        )
    name, *numbers = (part.strip() for part in found.split(","))
    for mixing in MIXINGS:
        if mixing.name == name:
            return _with(mixing, numbers, found)
    raise ConfigError(unknown("mixing", name, [m.name for m in MIXINGS]))


def _with(mixing: Mixing, numbers: Sequence[str], text: str) -> Mixing:
    """Return a mixing with the numbers that a text gives it, such as ``rate=0.5``."""
    known, given = numbers_of(mixing), dict[str, float]()
    for number in numbers:
        field, equals, value = number.partition("=")
        if not known:
            raise ConfigError(f"{mixing.name} takes no number (mixing: {text!r}); leave it out")
        if field not in known:
            raise ConfigError(unknown(f"number of {mixing.name}", field, list(known)))
        if not equals or field in given:
            raise ConfigError(f"each number of a mixing is given once (mixing: {text!r}), as in {field}={known[field]}")
        given[field] = _number(value, f"mixing: {text!r}", field)
    return replace(mixing, **given) if given else mixing  # type: ignore[type-var]


def _number(text: str, where: str, field: str) -> float:
    try:
        value = float(text)
    except ValueError as problem:
        raise ConfigError(f"{field} takes a number ({where}), as in {field}=0.5") from problem
    if not math.isfinite(value):
        raise ConfigError(f"{field} takes a finite number ({where}), as in {field}=0.5")
    return value


def _told_apart(found: Mixing) -> Mixing:
    """Return a mixing, and refuse one that would be taken for one that has a name, here or where it is written down."""
    for mixing in MIXINGS:
        if type(found) is type(mixing) and vars(found).keys() == numbers_of(found).keys():
            return mixing if found.text == mixing.text else found
        if type(found) is type(mixing) or found.name == mixing.name:
            own = type(found).__qualname__ + "".join(f", {name} set" for name in vars(found))
            raise ConfigError(
                f"this is not the mixing {mixing.name} (mixing: {found.name}, it is: {own}); inherit from it, and give "
                "yours no name or another one"
            )
    return found


def _made(kind: type[Mixing]) -> Mixing:
    try:
        return kind()
    except Exception as problem:  # the class is the user's: anything can be raised
        raise ConfigError(
            f"a mixing cannot be made without arguments (mixing: {name_of(kind)}): {said(problem)}; give it made, such "
            f"as mixing={kind.__name__}(...), or let all have a default"
        ) from problem


def kind_of(mixing: Mixing, asked: MixingSettings, usual: Kind) -> Kind:
    """Return what names a chosen mixing: its own name, or whatever the user or the method gave for it."""
    # What one of the user's own calls itself does not say where it is.
    return mixing.text if has_name(mixing) else usual if asked.kind is None else asked.kind


def choose_mixing(asked: MixingSettings, usual: Kind, method: str, groups: int, sizes: Sequence[int] = ()) -> Mixing:
    """Return the mixing of a run, none for a single group but where one has it for itself.

    Args:
        asked: by the user.
        usual: the method's.
        method: its name.
        groups: S.
        sizes: samples of each group's batch; alike if left out.

    Raises:
        ConfigError: the method needs one to be named, there is none of that name, it does not know what groups weigh,
            or it mixes no momentum.
    """
    chosen = find_mixing(usual if asked.kind is None else asked.kind)
    if asked.kind is None and chosen is NONE and groups > 1:
        names = ", ".join(m.name for m in MIXINGS)
        raise ConfigError(
            f"{method} says nothing of groups (groups: {groups}); train one group, or name a mixing: {names}"
        )
    if len(set(sizes)) > 1 and not has_name(chosen):
        raise ConfigError(
            f"a mixing of your own does not know that groups weigh unlike much (mixing: {text_of(chosen)}, batch_size: "
            f"{','.join(map(str, sizes))}); take one by name, or batches of one size"
        )
    made = NONE if groups == 1 and not chosen.alone else chosen
    if asked.momentum:
        made.refuse("momentum", "mixing.momentum: true")
    return made


def check_turns(mixing: Mixing, turns: Turns, *, momentum: bool) -> None:
    """Refuse what a mixing cannot make of its turns.

    Args:
        mixing: of the run.
        turns: of the run.
        momentum: whether momentum is mixed too.

    Raises:
        ConfigError: it knows no lag rules and no parts.
    """
    if mixing is not NONE or turns.groups > 1:
        check_fits(turns, mixing.name, averages=type(mixing) in AVERAGINGS, momentum=momentum)


def turns_of(
    asked: MixingSettings,
    groups: int,
    updates: int,
    sizes: Sequence[int] = (),
    usual: UsualTurns = USUAL,
    mixing: Mixing = NONE,
    stages: int = 1,
    seed: int = 0,
    planned: int | None = None,
) -> Turns:
    """Return when groups mix and with whom; a topology is checked even where a single group does not use it.

    Args:
        asked: by the user.
        groups: S.
        updates: N.
        sizes: samples of each group's batch; alike if left out.
        usual: the method's, for what the user has left out.
        mixing: of the run, which knows what a topology is to it, and has one where the user names none.
        stages: K.
        seed: of the run.
        planned: updates that are planned, wherever the run ends; N if left out.

    Raises:
        ConfigError: the topology makes no sense, or the share that travels is none.
    """
    when = usual.of(asked)
    if not 0.0 < when.sparse <= 1.0:
        raise ConfigError(
            f"a round exchanges some share of every tensor, at most all (mixing.sparse: {when.sparse}); take one above "
            "0 and up to 1"
        )
    return Turns(
        _shares(mixing, mixing.topology if when.topology is None else when.topology, groups, sizes, seed),
        when.period,
        when.lag,
        updates,
        fragments=stages if when.fragments else 1,
        lag_rule=when.lag_rule,
        sparse=when.sparse,
        seed=seed,
        planned=updates if planned is None else planned,
    )


def _shares(
    mixing: Mixing, topology: Topology, groups: int, sizes: Sequence[int], seed: int
) -> MixingMatrix | PushMatrix | RandomPairs:
    if not isinstance(topology, str) or topology != RANDOM_PAIRS:
        return mixing.matrix(topology, groups, sizes)
    mixing.refuse("random pairs", f"topology: {RANDOM_PAIRS}")
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"of a pair each takes half of the other, which keeps no mean that is weighed by unlike sizes (topology: "
            f"{RANDOM_PAIRS}, batch_size: {','.join(map(str, sizes))}); take another topology, such as ring"
        )
    return RandomPairs(groups, seed)
