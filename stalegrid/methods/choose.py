"""A method and its schedule, settled from what was asked for.

Does not know: which methods there are but by name, groups, engines.
"""

from collections.abc import Sequence
from dataclasses import replace

from stalegrid.errors import ConfigError
from stalegrid.methods.method import Method, ServerMethod
from stalegrid.methods.published import METHODS, SERVER_METHODS
from stalegrid.programs import Schedule, stale
from stalegrid.written import is_path, said, unknown, value_of

Named = str | Method | ServerMethod


def find(name: Named) -> Method | ServerMethod:
    """Return a method.

    Args:
        name: of a published one, the path ``PACKAGE.MODULE:NAME`` of one, or the method itself.

    Raises:
        ConfigError: there is none of that name, or one's own has the name of a published one.
    """
    found = value_of(name, "method") if is_path(name) else name
    methods = {method.name: method for method in (*METHODS, *SERVER_METHODS)}
    if isinstance(found, Method | ServerMethod):
        if methods.get(found.name, found) != found:
            raise ConfigError(f"this is not the published {found.name} (method: {found.name}); give it another name")
        return found
    if found is not name:
        raise ConfigError(
            f"this is no method (method: {name}, it is: {type(found).__name__}); make a stalegrid.Method of it"
        )
    if name not in methods:
        raise ConfigError(unknown("method", str(name), list(methods)))
    return methods[str(name)]


def find_grid(name: Named) -> Method:
    """Return a method of the grid; arguments and errors as for :func:`find`, and for those of learners."""
    found = find(name)
    if isinstance(found, ServerMethod):
        raise ConfigError(
            f"{found.name} trains learners with parameter servers, not a grid (method: {found.name}); use train"
        )
    return found


STALEST = 10_000
"""Batches that a stage may run ahead, at most: it holds as many."""


def schedule(
    method: Method,
    stages: int,
    staleness: Sequence[int] | None,
    queues: Sequence[int] | None,
    micro_batches: int,
    delay: int = 0,
) -> Schedule:
    """Return the method's schedule, or the user's own staleness in it.

    Args:
        method: one of ``METHODS``.
        stages: K.
        staleness: m_k per stage in batches; None for the method's.
        queues: p_k per stage instead; None for the method's.
        micro_batches: M.
        delay: of the view; see :class:`~stalegrid.programs.schedules.Schedule`.

    Raises:
        ConfigError: the staleness has another length than K, is negative, increases along the stages, or the
            method has none.
    """
    if micro_batches < 1:
        raise ConfigError(f"an update needs at least one micro-batch (micro-batches: {micro_batches})")
    if queues is not None and staleness is not None:
        raise ConfigError(f"staleness and queues say the same (staleness: {staleness}, queues: {queues}); give one")
    for name, given in (("staleness", staleness), ("queues", queues)):
        if given is None:
            continue
        if not isinstance(given, Sequence) or not all(isinstance(number, int) for number in given):
            raise ConfigError(f"{name} needs one whole number a stage ({name}: {given!r})")
        shown = ",".join(map(str, given))
        if not method.stale:
            raise ConfigError(
                f"{method.name} flushes at every update and has no staleness ({name}: {shown}); leave it out"
            )
        if len(given) != stages:
            raise ConfigError(f"{name} needs one number a stage ({name}: {shown}, stages: {stages})")
        if max(given) > STALEST:
            raise ConfigError(f"a stage runs ahead by at most {STALEST} batches ({name}: {shown})")
    ahead = staleness if queues is None else staleness_of(queues)
    chosen = _own(method, stages, micro_batches) if ahead is None else stale(ahead, micro_batches)
    return replace(chosen, delay=delay)


def _own(method: Method, stages: int, micro_batches: int) -> Schedule:
    """Return the schedule of a method itself, which may be a user's."""
    try:
        made = method.schedule(stages, micro_batches)
    except ConfigError:
        raise
    except Exception as problem:  # the method is the user's: anything can be raised
        raise ConfigError(
            f"the schedule of {method.name} fails (stages: {stages}, micro_batches: {micro_batches}): {said(problem)}"
        ) from problem
    if not isinstance(made, Schedule):
        raise ConfigError(
            f"a method's schedule takes K and M and returns a schedule (method: {method.name}, returned: "
            f"{type(made).__name__}); return stalegrid.stale([m_0, ..., m_(K-1)], M)"
        )
    if (made.stages, made.micro_batches) != (stages, micro_batches):
        raise ConfigError(
            f"the schedule of {method.name} is not the one that was asked for (stages: {made.stages} instead of "
            f"{stages}, micro_batches: {made.micro_batches} instead of {micro_batches}); let it use K and M"
        )
    if not made.flush:
        stale([window - 1 for window in made.windows], micro_batches)  # refuses what would never end
    return made


def staleness_of(queues: Sequence[int]) -> list[int]:
    """Return the staleness that bounded queues allow: ``m_k = m_(k+1) + 1 + p_k``, ``m_(K-1) = p_(K-1)``.

    Args:
        queues: p_k per stage, activations that may wait behind the one that is being taken (arXiv 1909.02625).

    Raises:
        ConfigError: a capacity is negative.
    """
    if min(queues) < 0:
        raise ConfigError(f"a queue holds 0 or more (queues: {','.join(map(str, queues))})")
    ahead = [queues[-1]]
    for capacity in reversed(queues[:-1]):
        ahead.append(ahead[-1] + 1 + capacity)
    return ahead[::-1]
