"""A callback that ends a run which no longer gets better.

Does not know: agents, engines, who measures.
"""

from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.observe.best import Best
from stalegrid.observe.callbacks import Callback, Stop
from stalegrid.observe.records import Record


class EarlyStopping(Callback):
    """Asks for the end once some evaluations in turn were no better than the best before them.

    Args:
        by: what is measured, such as ``test_accuracy``, with a minus where the smallest is best: ``-test_loss``.
        patience: evaluations in turn.
        least: by how much a better one must be better.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(self, by: str, patience: int = 3, least: float = 0.0) -> None:
        if patience < 1:
            raise ConfigError(f"early stopping waits for at least one evaluation (patience: {patience})")
        if not 0 <= least < float("inf"):
            raise ConfigError(f"early stopping wants a difference of 0 or more (least: {least})")
        self.by = by
        self._best = Best(by, least)
        self._patience = patience
        self._waited = 0

    def on_evaluation(self, record: Record, model: nn.Module) -> None:
        """Count the evaluations since the best.

        Raises:
            Stop: there were as many as it has patience for.
        """
        self._waited = 0 if self._best.takes(record) else self._waited + 1
        if self._waited >= self._patience:
            best = self._best.record
            since = f"was best at version {best['version']}" if best else "has never been a number"
            raise Stop(f"{self._best.name} {since}, evaluations in vain: {self._waited}")
