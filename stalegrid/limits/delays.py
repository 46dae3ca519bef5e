"""Which weights the gradient of a stage is of: the parts of a recursion, from schedule and view.

Does not know: models, optimizers, groups, how curvature is measured.

Let w be what a stage trains, and y(x; w) its output.  The gradient of a batch is ``J(w_b)^T l(y(x; w_f))``: w_f are the
weights of its forward, which say what the stages above see and send back, and w_b those that its backward reads.
About a minimum its change is ``G dw_f + R dw_b``, the Hessian of the stage being ``H = G + R``:

* G, the curvature of what comes after y (``J^T l' J``), is as late as the forward, whatever the view;
* R, that of y itself times the slope there, is as late as the weights of the backward.  It is 0 where y is linear in w,
  and where the slope is.

``stashed`` and ``double-buffered``: w_b = w_f, all of H is late.  ``recomputed``: w_b are the weights of now, R is not
late; and where the stage computes the loss too, the second forward makes it anew, and nothing is.  ``current`` takes
activations of then and weights of now, entry by entry of the graph; ``corrected`` and both predicted views mix other
weights in: what of R is late there is not derived, and all is taken to be.  Predicted forwards are at weights s steps
ahead of those of their version.
"""

from collections import Counter

from stalegrid.programs import Schedule
from stalegrid.stability import Late, Momentum, Recursion
from stalegrid.stages import VIEWS, View, name_of_view

ALL_LATE = ("stashed", "double-buffered")
"""Views of which the recursion is derived, whatever the stage computes."""

SPLIT = "recomputed"
"""The view of which it is derived from two measurements."""

TAKEN_LATE = ("current", "corrected", "predicted", "predicted-twice")
"""Views of which it is derived for stages whose outputs are linear in their parameters, and taken to be so else."""


def known(view: type[View]) -> bool:
    """Return whether anything is known of a view: it is one that has a name."""
    return view in VIEWS.values()


def renewed(schedule: Schedule, view: type[View], stage: int) -> bool:
    """Return whether all that a stage computes is made anew at the weights of now, so that nothing is late."""
    return name_of_view(view) == SPLIT and stage == schedule.stages - 1


def delays(schedule: Schedule, view: type[View], stage: int) -> tuple[Late, ...]:
    """Return how late forwards are, once the pipeline is full, as parts of a curvature of 1.

    Args:
        schedule: of the run.
        view: whose weights forwards use.
        stage: of which.
    """
    if renewed(schedule, view, stage):
        return (Late(0, 1.0),)
    micro = schedule.micro_batches
    update = schedule.begins + 2 * max(schedule.windows)
    batches = range(update * micro, (update + 1) * micro)
    late = Counter(update - schedule.version_of(stage, batch) for batch in batches)
    return tuple(Late(d, count / micro, _ahead(schedule, view, stage, d)) for d, count in sorted(late.items()))


def factor(schedule: Schedule, view: type[View], stage: int, steps: Momentum) -> float | None:
    """Return the largest stable rate of a stage by that of one where nothing is late, if all its curvature is late.

    Args:
        schedule: of the run.
        view: whose weights forwards use.
        stage: of which.
        steps: of SGD.

    Returns:
        None for a view of the user's own, of which nothing is known, and for predicted weights without momentum.
    """
    late = delays(schedule, view, stage) if known(view) else ()
    if not late or (not steps.momentum and any(part.ahead for part in late)):
        return None
    recursion = Recursion(late, 0.0, steps)
    return recursion.largest_rate() / recursion.at_once().largest_rate()


def _ahead(schedule: Schedule, view: type[View], stage: int, delay: int) -> int:
    """Return by how many steps the weights of a forward are predicted."""
    match name_of_view(view):
        case "predicted":
            return delay
        case "predicted-twice" if not schedule.flush:
            return delay + (schedule.windows[0] - schedule.windows[stage]) // 2 // schedule.micro_batches
        case _:
            return 0
