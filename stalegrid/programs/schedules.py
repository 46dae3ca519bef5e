"""How far each stage runs ahead of its own backwards, and how stale that makes its updates, in closed form.

Does not know: groups, messages, tensors, time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stalegrid.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Schedule:
    """How far each stage runs ahead of its own backwards.

    Args:
        windows: per stage, batches in flight before the first backward (at least 1).
        micro_batches: M, batches (micro-batches) an update averages over.
        flush: whether no forward may cross an update, which makes gradients exact.
        delay: for batches forwarded at a past version: how many versions before the one that their update changes;
            0 to forward at the newest.
        begins: version at which the run begins, with nothing in flight; 0 for one that goes on from no other.
    """

    windows: tuple[int, ...]
    micro_batches: int = 1
    flush: bool = False
    delay: int = 0
    begins: int = 0

    @property
    def stages(self) -> int:
        """K."""
        return len(self.windows)

    def version_of(self, stage: int, batch: int) -> int:
        """Return the version at which a stage forwards a batch.

        Batch b is forwarded just before B(b - m), when ``max(0, b - m) // M`` updates were applied; with a flush, when
        all updates before its own were.  A run that begins at a later version has none before that.
        """
        update = batch // self.micro_batches
        if self.flush:
            return update
        if self.delay:
            return max(self.begins, update - self.delay)
        return max(self.begins, (batch - self.windows[stage] + 1) // self.micro_batches)

    def renews(self, stage: int, batch: int) -> bool:
        """Return whether a stage forwards a batch at another version than the batch before it."""
        first = batch == self.begins * self.micro_batches
        return not first and self.version_of(stage, batch) > self.version_of(stage, batch - 1)

    def bound(self, stage: int) -> int:
        """Return the staleness, in updates, that no update of the stage exceeds: ceil(m_k / M), or the delay."""
        if self.flush:
            return 0
        return self.delay or -(-(self.windows[stage] - 1) // self.micro_batches)

    def in_flight(self, stage: int) -> int:
        """Return how many batches are at most between the forward and the backward of a stage."""
        return self.windows[stage]

    def queued(self, stage: int) -> int:
        """Return how many activations at most wait for a stage, or are under way to it, once gradients flow.

        Stage k-1 forwards batch ``b + m_{k-1}`` only after it has used the gradient of batch ``b - 1``, for which
        stage k must have forwarded batch ``b - 1 + m_k``: so at most ``m_{k-1} - m_k + 1`` lie between.  This is the
        bounded queue with back-pressure of arXiv 1909.02625, where neither the activation that a stage is about to
        take nor the one that was just sent is counted: ``m_{k-1} = m_k + 1 + p_k`` for a queue of p_k.  Before the
        first gradient, and in every round of a flush, it is the whole window of stage k-1.

        So queues are not built: the staleness is their capacity.  Capacities of their own would change no number, save
        memory at the start only, and could deadlock.
        """
        return self._between(stage - 1, stage) if stage else 0

    @property
    def targets_queued(self) -> int:
        """How many targets that travel at most wait for the last stage, or are under way to it, once gradients flow.

        By the same argument, over all stages between: ``m_0 - m_{K-1} + 1``; at first, and in every round of a flush,
        the whole window of the first stage.
        """
        return self._between(0, self.stages - 1) if self.stages > 1 else 0

    def _between(self, source: int, target: int) -> int:
        if self.flush:
            return self.windows[source]
        return self.windows[source] - self.windows[target] + 1

    @property
    def all_busy(self) -> bool:
        """Whether all stages can compute at once in the steady state: m_k >= m_{k+1} + 1, and no flush."""
        pairs = zip(self.windows, self.windows[1:], strict=False)
        return not self.flush and all(a > b for a, b in pairs)


def stale(staleness: Sequence[int], micro_batches: int = 1) -> Schedule:
    """Build the schedule of fully decoupled backpropagation.

    Args:
        staleness: m_k per stage, in batches.
        micro_batches: M, batches an update averages over.

    Raises:
        ConfigError: negative or increasing along the stages; an increasing vector deadlocks.
    """
    shown = ",".join(map(str, staleness))
    for k, m in enumerate(staleness):
        if m < 0:
            raise ConfigError(f"staleness is negative (staleness: {shown}, stage: {k}); use 0 or more")
        if k and staleness[k - 1] < m:
            raise ConfigError(
                f"staleness increases along the stages (staleness: {shown}, stage {k - 1}: {staleness[k - 1]}, "
                f"stage {k}: {m}): stage {k - 1} would wait for a gradient of a batch it has not sent; "
                "give a list that never increases, such as 2(K-1-k)"
            )
    return Schedule(tuple(m + 1 for m in staleness), micro_batches)


def gpipe(stages: int, micro_batches: int) -> Schedule:
    """Build GPipe: all forwards of an update, then all backwards."""
    return Schedule((micro_batches,) * stages, micro_batches, flush=True)


def one_f_one_b(stages: int, micro_batches: int) -> Schedule:
    """Build 1F1B with a flush: at most K - k batches in flight at stage k."""
    return Schedule(tuple(min(micro_batches, stages - k) for k in range(stages)), micro_batches, flush=True)
