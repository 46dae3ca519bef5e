"""What a user can ask for, with defaults: groups of settings, one a wing, and short names for those of every day.

Does not know: what any option does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from stalegrid.checkpoints import CheckpointSettings
from stalegrid.engines import EngineSettings
from stalegrid.plans import Choices
from stalegrid.written import grouped, groups_of, plain

SHORT = {
    "groups": "grid.groups",
    "stages": "grid.stages",
    "cuts": "grid.cuts",
    "blocks": "grid.blocks",
    "staleness": "method.staleness",
    "view": "method.view",
    "corrections": "method.corrections",
    "micro_batches": "method.micro_batches",
    "topology": "mixing.topology",
    "learners": "servers.learners",
    "batch_size": "training.batch_size",
    "test_batch_size": "training.test_batch_size",
    "workers": "training.workers",
    "epochs": "training.epochs",
    "updates": "training.updates",
    "seed": "training.seed",
    "dtype": "training.dtype",
    "precision": "training.precision",
    "split": "training.split",
    "compile": "training.compile",
    "processes": "engine.processes",
    "device": "engine.device",
    "costs": "devices.costs",
    "out": "output.folder",
    "evaluation": "output.evaluation",
    "diagnose": "output.diagnose",
    "lr": "optimizer.lr",
}
"""The options that have a short name, in Python, in YAML and on the command line."""


ALWAYS = ("method.name", "engine.kind", "model.name", "data.name", *SHORT.values())
"""What the configuration of a run says even where it is the default."""


@dataclass(frozen=True, kw_only=True)
class Settings(Choices):
    """How to train.

    Args:
        engine: where it happens.
        checkpoint: when its state is saved.
    """

    engine: EngineSettings = field(default_factory=EngineSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return settings of groups, of what stands for a group, and of short names.

        Args:
            given: such as ``{"method": "dsp", "stages": 4, "mixing": {"period": 2}}``.

        Raises:
            ConfigError: there is no such name, two say the same, or a value is of another type.
        """
        return grouped(cls, given, SHORT)

    def plain(self) -> dict[str, Any]:
        """Return what was chosen or settled, as plain values; where results are written is no part of it."""
        return plain(replace(self, output=replace(self.output, folder=None)), ALWAYS)

    def common(self) -> str:
        """Return what all processes of a run must be asked for alike, as text."""
        # Where the first one writes, and reads costs, is its own.
        return repr(replace(self, devices=replace(self.devices, costs=None)).plain())


def option_of(kind: type[Settings], path: str) -> str:
    """Return how a field is written on the command line: short where it may be.

    Args:
        kind: of settings.
        path: such as ``method.micro_batches``.
    """
    group, _, field_name = path.partition(".")
    short = {whole: name for name, whole in SHORT.items()}
    name = group if field_name == groups_of(kind)[group].OWN else short.get(path, path)
    return "--" + name.replace("_", "-")
