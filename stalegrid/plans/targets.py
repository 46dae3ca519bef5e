"""What the targets of a batch are like, and whether they travel from the first stage to the last.

Does not know: how they are read, engines.

Reading twice costs no message, and is right where samples are cheap to read or in memory; what can be read only once,
in order, must travel.  The bits are the same, so the choice is the user's where there is one.  It is not made by
engine or by cost, so that a plan is the same wherever it runs.
"""

from dataclasses import dataclass
from typing import Any

from stalegrid.data import Stream, TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.objects import Form, tensors_in
from stalegrid.programs import Layout, layout_of


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of every batch.

    Args:
        form: of the tree.
        layouts: of its tensors, for a batch of each shape; what is alike once.
    """

    form: Form
    layouts: tuple[Layout, ...]

    @classmethod
    def of(cls, first: Any, *others: Any) -> "Targets":
        """Describe the targets of batches, one for each shape."""
        form, _ = Form.split(first)
        layouts = (layout_of(tensors_in(tree)) for tree in (first, *others))
        return cls(form, tuple(dict.fromkeys(layouts)))


def targets_travel(training: TrainingSettings, samples: object) -> bool:
    """Return whether targets travel.

    Args:
        training: what is asked for.
        samples: that the batches are from.

    Raises:
        ConfigError: a stream would be read by two stages.
    """
    stream = isinstance(samples, Stream)
    if stream and training.targets == "read":
        raise ConfigError(
            "a stream is read by the first stage alone (training.targets: read); leave training.targets out"
        )
    return stream or training.targets == "travel"
