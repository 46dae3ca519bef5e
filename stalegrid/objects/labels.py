"""Names the sample whose label a loss fails at.

Does not know: how losses are computed and by whom, where samples come from.

Torch says "Target 7 is out of bounds" and not which one; a single wrong label among millions is hard to find so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from stalegrid.errors import DataError

IGNORED = -100
"""The label that torch's losses ignore where nobody says another."""


def ignored_by(loss: object) -> Any:
    """Return the label that a loss says it ignores; None if it says nothing of any."""
    return getattr(loss, "ignore_index", None)


@contextmanager
def named(outputs: Any, targets: Any, samples: Callable[[], Tensor], loss: object) -> Iterator[None]:
    """Say which sample is to blame where a loss fails at labels that are none of the classes.

    Args:
        outputs: class scores, shape (B, classes) or (B, classes, ...); anything else is left alone.
        targets: labels, whole numbers, shape (B,) or (B, ...); likewise.
        samples: returns the index of each sample in its data set, shape (B,).
        loss: that may fail; asked for the label that it ignores.

    Raises:
        DataError: the loss has failed, and there is such a label.
    """
    try:
        yield
    except Exception as problem:  # the loss is the user's: anything can be raised
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            raise
        if outputs.ndim < 2 or targets.is_floating_point() or targets.ndim != outputs.ndim - 1:
            raise
        # A function such as F.cross_entropy says nothing of what it ignores.
        ignored = IGNORED if ignored_by(loss) is None else ignored_by(loss)
        wrong = ((targets < 0) | (targets >= outputs.shape[1])) & (targets != ignored)
        if not wrong.any():
            raise
        first = wrong.nonzero()[0]
        raise DataError(
            f"a label is none of the classes (sample: {int(samples()[first[0]])}, label: {int(targets[tuple(first)])}, "
            f"classes: {outputs.shape[1]}); mend the data, or give the model an output for each class"
        ) from problem
