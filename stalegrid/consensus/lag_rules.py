"""What is made of neighbours' vectors that are late, and of parts: rules by name, what they keep, what is refused.

Does not know: how a rule does it, methods, engines.

Which lags are stable, where a snapshot is older than the round before (lag >= period): for ``delta`` with all of the
vector see :mod:`stalegrid.consensus.stability`.  With parts, an element is mixed once a cycle, at a place that is drawn
anew.  As long as fewer rounds lie between a snapshot and its mix than a cycle has, at most one other mix of the same
element does, sometimes.  So along an eigenvector of P the distance to the mean follows ``e' = e - (1 - lambda) e_-1``
or ``e' = e - (1 - lambda) e``, whichever it is: no order of the two makes more of it where 1 - lambda <= 1, and two of
the latter in a row, which come again and again, make less.  For ``ema`` the same is asked.  There it is no theorem: it
is what the source reports (it diverged where 1/p < tau) and what the recursion without gradients shows.  A graph that
is another one in each turn has no eigenvalues that would say it; it is refused with such lags, and with ``ema``.  Where
the lag is below the period every snapshot is newer than the last mix, so that ``delta`` does what mixing would do at
once, in any graph.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor

from stalegrid.consensus.averaging import ParameterAveraging
from stalegrid.consensus.delta import DeltaAveraging
from stalegrid.consensus.ema import EmaAveraging, beta_of
from stalegrid.consensus.mixing import Turns, Vectors
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.rounds import Averaging
from stalegrid.consensus.sent import Parts, Whole, drawn_bytes, draws_of, length, parts_of
from stalegrid.consensus.stability import delta_limit, stable_delta
from stalegrid.errors import ConfigError
from stalegrid.stages import Weights

OWN_CURRENT, DELTA, EMA = "own-current", "delta", "ema"

_ROUNDING = 1e-9


def averaging(
    turns: Turns,
    rounds: Averaging,
    stage: int,
    weights: Weights,
    momentum: Momentum | None,
    pull: Callable[[Tensor, float], Tensor],
) -> ParameterAveraging:
    """Return the averaging of a unit's parameters by the rule that the turns name.

    Args:
        turns: of the run.
        rounds: of the mixing.
        stage: k.
        weights: of the unit.
        momentum: of its optimizer, where that is mixed too.
        pull: see :class:`ParameterAveraging`.
    """
    parts = parts_of(turns.sparse)
    sent: Whole | Parts = Whole(weights.trained, weights.mixed)
    if parts > 1:
        sent = Parts(weights, parts, turns.first, _late(turns), draws_of(turns.seed, stage))
    if turns.lag_rule == DELTA:
        return DeltaAveraging(rounds, weights, momentum, pull, sent, stage)
    if turns.lag_rule == EMA:
        beta = partial(beta_of, planned=turns.planned)
        return EmaAveraging(rounds, weights, pull, sent, turns.first + parts, beta)
    return ParameterAveraging(rounds, weights, momentum, pull, sent, stage)


def elements(turns: Turns, vectors: Vectors) -> int:
    """Return the elements of every message."""
    parts = parts_of(turns.sparse)
    whole = vectors.read.mixed + vectors.momentum * vectors.trainable
    return whole if parts == 1 else length(vectors.read, parts)


def remembered(turns: Turns, vectors: Vectors) -> int:
    """Return the bytes that a rule, and parts, keep from one turn to the next, at most."""
    parts, late, size = parts_of(turns.sparse), _late(turns), vectors.read.dtype.itemsize
    drawn = drawn_bytes(vectors.read, parts, late) if parts > 1 else 0
    snapshots = 0 if turns.lag_rule == OWN_CURRENT else (late + 1) * elements(turns, vectors)
    estimate = vectors.read.mixed if turns.lag_rule == EMA else 0
    return drawn + size * (snapshots + estimate)


def check_rule(turns: Turns) -> None:
    """Refuse a rule that would drive groups apart, or has nothing to do.

    Raises:
        ConfigError: it would, or it is not known that it would not.
    """
    if turns.lag_rule == EMA and not turns.lag:
        raise ConfigError(
            "the lag rule ema estimates how far a group goes while what others sent is under way (mixing.lag_rule: "
            "ema, lag: 0); take a lag, or leave the rule out"
        )
    where = f"mixing.lag_rule: {turns.lag_rule}, lag: {turns.lag}, period: {turns.period}"
    if len(turns.matrix.matrices) > 1 and (turns.lag_rule == EMA or (turns.lag_rule == DELTA and _late(turns))):
        raise ConfigError(
            f"nobody knows whether groups come together whose neighbours change from turn to turn ({where}); take a "
            "topology that stays, lag rule own-current, or lag rule delta with a period above the lag"
        )
    if turns.lag_rule == OWN_CURRENT or not _late(turns):
        return
    parts = parts_of(turns.sparse)
    if _late(turns) >= parts and (parts > 1 or turns.lag_rule == EMA):
        raise ConfigError(
            f"elements would be mixed again before what was mixed last is in a snapshot ({where}, sparse: "
            f"{turns.sparse}, so every {turns.period * parts} updates); take a smaller share (mixing.sparse), a longer "
            "period or a shorter lag"
        )
    eigenvalues = np.linalg.eigvals(turns.matrix.matrices[0]).real  # those of a reversible matrix are real
    most, limit = 1.0 - float(eigenvalues.min()), 1.0 if parts > 1 else delta_limit(turns.lag, turns.period)
    if most <= 1.0 + _ROUNDING if parts > 1 else stable_delta(eigenvalues.tolist(), turns.lag, turns.period):
        return
    raise ConfigError(
        f"groups would drift apart ({where}, the mixing matrix has an eigenvalue {1.0 - most:.6g}, and 1 minus it, "
        f"{most:.6g}, must be {'at most' if parts > 1 else 'below'} {limit:.6g}); take a period above the lag, "
        f"{'topology complete' if parts > 1 else 'a matrix in which groups keep more of themselves'}, or lag rule "
        "own-current"
    )


def check_fits(turns: Turns, name: str, *, averages: bool, momentum: bool) -> None:
    """Refuse rules and parts that a mixing does not know.

    Args:
        turns: of the run.
        name: of the mixing.
        averages: whether it is one of those that average parameters with neighbours as they are.
        momentum: whether momentum is mixed too.

    Raises:
        ConfigError: it does not know them.
    """
    where = f"mixing.lag_rule: {turns.lag_rule}, mixing.sparse: {turns.sparse}"
    if not averages and (turns.lag_rule != OWN_CURRENT or parts_of(turns.sparse) > 1):
        raise ConfigError(
            f"lag rules and parts are of combine-while-adapt and adapt-then-combine alone ({where}, mixing: {name}); "
            "take one of those, or lag rule own-current and sparse 1"
        )
    if turns.fragments > 1 and (turns.lag_rule == EMA or parts_of(turns.sparse) > 1):
        raise ConfigError(
            f"stages that take turns mix all of their parameters, which are their parts (mixing.fragments: true, "
            f"{where}); leave fragments out, or mix all with lag rule own-current or delta"
        )
    if momentum and (turns.lag_rule == EMA or parts_of(turns.sparse) > 1):
        raise ConfigError(
            f"momentum is not mixed by parts or by lag rule ema (mixing.momentum: true, {where}); leave momentum with "
            "the groups, or mix all of it with lag rule own-current or delta"
        )


def _late(turns: Turns) -> int:
    """Return how many other turns may lie between a share and its mix."""
    return turns.lag // turns.period
