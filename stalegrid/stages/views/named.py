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
from stalegrid.written import is_path, name_of, unknown, value_of

__all__ = ["VIEWS", "Kept", "View", "find_view", "name_of_view"]

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


def find_view(view: str | type[View]) -> type[View]:
    """Return a view.

    Args:
        view: its name, the path ``PACKAGE.MODULE:NAME`` of a class, or the class itself.

    Raises:
        ConfigError: there is none of that name, or it is no view.
    """
    found = value_of(view, "view") if is_path(view) else view
    if isinstance(found, type) and issubclass(found, View):
        return _usable(found)
    if isinstance(found, View):
        raise ConfigError(f"a view is made for every unit (view: {type(found).__name__}, made already); give its class")
    if found is not view:
        raise ConfigError(f"this is no view (view: {view}, it is: {type(found).__name__}); inherit from stalegrid.View")
    if found not in VIEWS:
        raise ConfigError(unknown("view", str(found), list(VIEWS)))
    return VIEWS[found]


def _usable(view: type[View]) -> type[View]:
    own = [name for name in ("seen", "finished") if getattr(view, name) is not getattr(View, name)]
    if view.recomputes and own:
        raise ConfigError(
            f"a second forward and its backward have the weights of then, and ask for no others (view: "
            f"{name_of_view(view)}, recomputes: True, overridden: {', '.join(own)}); leave out the one or the other"
        )
    return view


def name_of_view(view: type[View]) -> str:
    """Return what a view is called: its name, or the path of a class of the user's."""
    return next((name for name, known in VIEWS.items() if known is view), name_of(view))
