"""Views: which weights a forward uses and a late backward sees, one file each, by the names that users give.

Does not know: how a backward reads them.
"""

from stalegrid.errors import ConfigError
from stalegrid.stages.views.base import Kept, View
from stalegrid.stages.views.corrected import Corrected
from stalegrid.stages.views.current import Current
from stalegrid.stages.views.double_buffered import DoubleBuffered
from stalegrid.stages.views.predicted import Predicted, PredictedTwice
from stalegrid.stages.views.recomputed import Recomputed
from stalegrid.stages.views.stashed import Stashed

__all__ = ["VIEWS", "Kept", "View", "find_view"]

VIEWS: dict[str, type[View]] = {
    "stashed": Stashed,
    "current": Current,
    "recomputed": Recomputed,
    "predicted": Predicted,
    "predicted-twice": PredictedTwice,
    "corrected": Corrected,
    "double-buffered": DoubleBuffered,
}
"""The views by name."""


def find_view(name: str) -> type[View]:
    """Return a view by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in VIEWS:
        raise ConfigError(f"unknown view (view: {name!r}); there are: {', '.join(VIEWS)}")
    return VIEWS[name]
