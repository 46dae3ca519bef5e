"""Which groups a run has where it goes on: some are lost, and some come back.

Does not know: how a group is lost, how the run goes on.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from stalegrid.checkpoints import FOLDER, Checkpoint, answer, asked_back
from stalegrid.config import Settings
from stalegrid.consensus import turns_of
from stalegrid.errors import ConfigError, GroupLost
from stalegrid.observe import tell
from stalegrid.plans import Membership
from stalegrid.runs.asked import Asked

_say = partial(tell, name="stderr")


def going(asked: Asked, source: Checkpoint, problem: GroupLost) -> Asked:
    """Return how a run goes on that has lost groups, and say so.

    Args:
        asked: the run.
        source: its last checkpoint.
        problem: which, and why.
    """
    why = str(problem).splitlines()[0].removesuffix("; then")
    _say(f"{_named(problem.groups)} gone, and the others go on from version {source.version}: {why}")
    membership = asked.membership.until(source.version).losing(problem.groups, source.version, why)
    return replace(asked, source=source, membership=membership)


def coming(asked: Asked, groups: int, folder: Path) -> dict[int, int]:
    """Return which lost groups somebody asks a run for, and whose state each takes; say of others why not.

    Args:
        asked: the run.
        groups: S, those that it was begun with.
        folder: of the run.
    """
    membership = asked.membership
    try:
        wanted = asked_back(folder / FOLDER, membership.gone)
        return {} if wanted is None else donors(asked.settings, membership, groups, wanted)
    except ConfigError as problem:
        answer(folder / FOLDER)
        _say(f"no group comes back: {problem}")
        return {}


def donors(settings: Settings, membership: Membership, groups: int, wanted: list[int]) -> dict[int, int]:
    """Return whose state groups take that come back: a neighbour's, or else that of the first group that is there.

    Args:
        settings: of the run.
        membership: of it so far.
        groups: S.
        wanted: groups that are lost, and shall come back.

    Raises:
        ConfigError: they are not lost, or those who would be there cannot mix.
    """
    if not wanted or set(wanted) - membership.gone:
        asked, lost = (", ".join(map(str, sorted(some))) or "none" for some in (wanted, membership.gone))
        raise ConfigError(f"no such group is lost (asked for: {asked}, lost: {lost})")
    turns = turns_of(settings.mixing, groups, 1, settings.training.sizes(groups))
    turns.only(membership.gone - set(wanted))
    there = [s for s in range(groups) if s not in membership.gone]
    return {s: next((r for r in turns.matrix.neighbours(s) if r in there), there[0]) for s in wanted}


def there_again(asked: Asked) -> Asked:
    """Return how a run goes on from its checkpoint to which groups come back that somebody has asked for."""
    source = asked.source
    if source is None:
        return asked
    membership = asked.membership.until(source.version)
    groups = source.manifest["settings"].get("grid", {}).get("groups", 1)  # learners have none, and nobody to come back
    found = coming(replace(asked, membership=membership), groups, source.run)
    if found:
        answer(source.run / FOLDER)
        _say(f"{_named(found)} back from version {source.version}")
    return replace(asked, membership=membership.returning(found, source.version))


def by_hosts(asked: Asked, hosts: int, say: Callable[[str], object]) -> Asked:
    """Return how a run goes on that a launcher has started again, with as many groups as there are hosts for.

    Args:
        asked: the run.
        hosts: that there are now.
        say: takes what is to be told, by one of the processes.
    """
    source = asked.source
    if source is None or asked.settings.engine.on_loss != "continue":
        return replace(asked, hosts=hosts) if source is None else asked
    groups = source.manifest["settings"]["grid"]["groups"]
    membership = asked.membership.until(source.version)
    there = max(1, min(groups, groups * hosts // asked.hosts))
    present = [s for s in range(groups) if s not in membership.gone]
    if losing := present[there:]:
        why = f"there are fewer hosts (hosts: {hosts}, at the beginning: {asked.hosts})"
        say(f"{_named(losing)} gone, and the others go on from version {source.version}: {why}")
        return replace(asked, membership=membership.losing(losing, source.version, why))
    wanted = sorted(membership.gone)[: there - len(present)]
    if not wanted:
        return replace(asked, membership=membership)
    say(f"{_named(wanted)} back from version {source.version}")
    back = membership.returning(donors(asked.settings, membership, groups, wanted), source.version)
    return replace(asked, membership=back)


def too_late(folder: Path) -> None:
    """Say of groups that somebody still asks for that the run is over."""
    if asked_back(folder / FOLDER, ()) is not None:
        answer(folder / FOLDER)
        _say("no group comes back: the run has come to its end before")


def _named(groups: Collection[int]) -> str:
    return f"group{'s' if len(groups) > 1 else ''} {', '.join(map(str, groups))} {'are' if len(groups) > 1 else 'is'}"
