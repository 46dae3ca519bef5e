"""Each published method as a setting of the parts, a few lines each.

Does not know: how any part works.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from difflib import get_close_matches

from stalegrid.errors import ConfigError
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale

NO_MIXING = "none"
COMBINE_WHILE_ADAPT = "combine-while-adapt"
ADAPT_THEN_COMBINE = "adapt-then-combine"
ALL_REDUCE = "all-reduce"
MIXINGS = (NO_MIXING, COMBINE_WHILE_ADAPT, ADAPT_THEN_COMBINE, ALL_REDUCE)
"""What groups exchange: nothing, parameters in one of two orders, or gradients."""


@dataclass(frozen=True, slots=True)
class Method:
    """A published way to train.

    Args:
        name: as users write it.
        citation: who published it.
        formula: staleness m_k in batches, as printed.
        schedule: (K, M) -> how far stages run ahead.
        view: weights that a late backward sees, unless the user chooses.
        mixing: what groups exchange, unless the user chooses.
        corrections: of gradients and learning rates, unless the user chooses.
        optimizer: class in torch.optim that defines the method; None for any.
        momentum: of the optimizer, or its first beta, unless the user chooses.
        shape: S and K, unless the user chooses.
        micro_batches: M, unless the user chooses.
        stale: whether the user may choose the staleness.
        max_groups: largest S; None for any.
        max_stages: largest K; None for any.
    """

    name: str
    citation: str
    formula: str
    schedule: Callable[[int, int], Schedule]
    _: KW_ONLY
    view: str = "stashed"
    mixing: str = NO_MIXING
    corrections: tuple[str, ...] = ()
    optimizer: str | None = None
    momentum: float = 0.9
    shape: tuple[int, int] = (1, 4)
    micro_batches: int = 1
    stale: bool = True
    max_groups: int | None = None
    max_stages: int | None = None


def _twice(stages: int, micro_batches: int) -> Schedule:
    return stale([2 * (stages - 1 - k) for k in range(stages)], micro_batches)


def _once(stages: int, micro_batches: int) -> Schedule:
    return stale([stages - 1 - k for k in range(stages)], micro_batches)


def _one_less(stages: int, micro_batches: int) -> Schedule:
    return stale([max(0, 2 * (stages - 1 - k) - 1) for k in range(stages)], micro_batches)


METHODS = (
    Method(
        "pham-ahn",
        "Pham and Ahn, arXiv 2509.05679",
        "2(K-1-k)",
        _twice,
        mixing=COMBINE_WHILE_ADAPT,
        shape=(2, 2),
    ),
    Method(
        "dsp", "Xu, Huo, Huang, Diversely Stale Parameters, arXiv 1909.02625", "2(K-1-k)", _twice, view="recomputed"
    ),
    Method(
        "fdg",
        "Zhuang et al., Fully Decoupled with Delayed Gradients, arXiv 1906.09108",
        "2(K-1-k)-1, 0 last",
        _one_less,
        view="current",
        corrections=("shrink=0.5",),
    ),
    Method("ddg", "Huo et al., Decoupled Backpropagation, arXiv 1804.10574", "K-1-k", _once),
    Method("features-replay", "Huo et al., Features Replay, arXiv 1807.04511", "K-1-k", _once, view="recomputed"),
    Method("pipedream", "Narayanan et al., PipeDream, SOSP 2019", "K-1-k", _once),
    Method(
        "pipedream-2bw",
        "Narayanan et al., PipeDream-2BW, arXiv 2006.09503",
        "K-1-k",
        _once,
        view="double-buffered",
        mixing=ALL_REDUCE,
        micro_batches=4,
    ),
    Method(
        "pipemare",
        "Yang et al., PipeMare, arXiv 1910.05124",
        "K-1-k",
        _once,
        view="corrected",
        corrections=("pipemare-rate",),
    ),
    Method("spectrain", "Chen, Yang, Cheng, SpecTrain, arXiv 1809.02839", "K-1-k", _once, view="predicted-twice"),
    Method("pipeoptim", "Guan et al., PipeOptim, arXiv 2312.00839", "K-1-k", _once, view="predicted"),
    Method(
        "async-nesterov",
        "Ajanthan et al., Nesterov for asynchronous pipelines, arXiv 2505.01099",
        "K-1-k",
        _once,
        optimizer="NAdam",
        momentum=0.99,
    ),
    Method("paci", "Elam et al., PACI, arXiv 2606.07881", "K-1-k", _once, view="current", micro_batches=4),
    Method(
        "sgd",
        "Robbins and Monro 1951; torch.optim's own loop, stage after stage",
        "0",
        gpipe,
        shape=(1, 1),
        stale=False,
        max_groups=1,
    ),
    Method(
        "data-parallel",
        "mean gradient of all groups at every update; Li et al., PyTorch Distributed, arXiv 2006.15704",
        "0",
        gpipe,
        mixing=ALL_REDUCE,
        shape=(2, 1),
        stale=False,
        max_stages=1,
    ),
    Method(
        "gpipe",
        "Huang et al., GPipe, arXiv 1811.06965",
        "0",
        gpipe,
        mixing=ALL_REDUCE,
        shape=(1, 2),
        micro_batches=4,
        stale=False,
    ),
    Method(
        "1f1b",
        "Narayanan et al., PipeDream-flush, arXiv 2006.09503",
        "0",
        one_f_one_b,
        mixing=ALL_REDUCE,
        shape=(1, 2),
        micro_batches=4,
        stale=False,
    ),
)


@dataclass(frozen=True, slots=True)
class ServerMethod:
    """A published way to train learners with parameter servers.

    Args:
        name: as users write it.
        citation: who published it.
        splits: n, by which the learners are divided into the gradients of an update; None for one a learner.
        corrections: of every gradient, unless the user chooses.
        synchronous: whether an update takes one gradient of each learner, all at the same version.
        free: whether the user may choose n.
    """

    name: str
    citation: str
    splits: int | None
    corrections: tuple[str, ...] = ()
    synchronous: bool = False
    free: bool = False


SERVER_METHODS = (
    ServerMethod(
        "hardsync", "synchronous SGD with a parameter server; Zhang et al., arXiv 1511.05950", 1, synchronous=True
    ),
    ServerMethod(
        "softsync",
        "Zhang, Gupta, Lian, Liu, staleness-aware n-softsync, arXiv 1511.05950",
        1,
        corrections=("inverse-staleness",),
        free=True,
    ),
    ServerMethod("asgd", "Dean et al., Downpour SGD, NIPS 2012", None),
)


def find(name: str) -> Method:
    """Return a method of the grid by name.

    Raises:
        ConfigError: there is none of that name.
    """
    for method in METHODS:
        if method.name == name:
            return method
    if find_served(name) is not None:
        raise ConfigError(f"{name} trains learners with parameter servers, not a grid (method: {name}); use train")
    names = [m.name for m in (*METHODS, *SERVER_METHODS)]
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"unknown method (method: {name!r}); {hint}there are: {', '.join(names)}")


def find_served(name: str) -> ServerMethod | None:
    """Return a method with parameter servers by name; None if there is none of that name."""
    return next((method for method in SERVER_METHODS if method.name == name), None)


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
    chosen = method.schedule(stages, micro_batches) if ahead is None else stale(ahead, micro_batches)
    return replace(chosen, delay=delay)


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
