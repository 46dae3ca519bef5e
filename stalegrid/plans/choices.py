"""What decides the numbers of a run, and what plans of grids and of servers settle alike.

Does not know: grids, servers, engines.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stalegrid.codecs import CodecSettings
from stalegrid.consensus import MixingSettings
from stalegrid.data import Slices, TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.methods import MethodSettings
from stalegrid.observe import OutputSettings
from stalegrid.plans.trials import Probed
from stalegrid.programs import GridSettings, ServerSettings, Watch
from stalegrid.stages import Maker, ruled
from stalegrid.timing import DeviceSettings
from stalegrid.written import Group, text_of, whole


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What decides the numbers of a run, by the wings that read it.

    Args:
        method: how gradients become updates.
        grid: the units.
        mixing: what groups exchange.
        codec: how messages are made smaller.
        servers: learners and servers, in place of a grid.
        training: how much.
        devices: what they are like.
        output: what is told.
    """

    method: MethodSettings = field(default_factory=MethodSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    mixing: MixingSettings = field(default_factory=MixingSettings)
    codec: CodecSettings = field(default_factory=CodecSettings)
    servers: ServerSettings = field(default_factory=ServerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    devices: DeviceSettings = field(default_factory=DeviceSettings)
    output: OutputSettings = field(default_factory=OutputSettings)


C = TypeVar("C", bound=Choices)


def refuse(group: Group, why: str, names: Sequence[str] | None = None) -> None:
    """Refuse settings that a method has no use for.

    Args:
        group: of the run.
        why: said with the error.
        names: which must be left out; all of the group if left out.

    Raises:
        ConfigError: one of them was given.
    """
    usual = type(group)()
    for name in vars(group) if names is None else names:
        if (value := getattr(group, name)) != getattr(usual, name):
            what = f"{group.NAME}.{name}"
            raise ConfigError(f"{why} ({what}: {text_of(value)}); leave {what} out")


def chosen_corrections(usual: Sequence[str | Maker], asked: MethodSettings) -> tuple[str | Maker, ...]:
    """Return the corrections or the rule that the user named, or a method's own; then the clipping of what they made.

    Raises:
        ConfigError: both are named, or there is no such rule.
    """
    if asked.rule is not None and asked.corrections is not None:
        shown = ",".join(map(str, text_of(asked.corrections)))
        raise ConfigError(
            f"a rule is a correction (method.rule: {asked.rule}, method.corrections: {shown}); name one of the two"
        )
    named = usual if asked.corrections is None else asked.corrections
    if asked.rule is not None:
        named = ruled(asked.rule)
    clip = () if asked.clip is None else (f"clip={asked.clip}",)
    return (*(() if list(named) == ["none"] else named), *clip)


EPOCHS = 10.0
"""Passes over the data where nobody says how long to train."""


def epochs_of(training: TrainingSettings) -> float:
    """Return the passes over the data that are asked for."""
    return EPOCHS if training.epochs is None else training.epochs


def settled(asked: C, corrections: Sequence[str | Maker], **of_method: Any) -> C:
    """Write down what plans of grids and of servers settle alike, so that it runs the same way again.

    Args:
        asked: by the user.
        corrections: of the run; the clipping at their end has a setting of its own.
        of_method: further fields of the method's settings.
    """
    named = list(corrections if asked.method.clip is None else corrections[:-1]) or ["none"]
    training = asked.training
    if training.updates is None:
        training = dataclasses.replace(training, epochs=epochs_of(training))
    method = dataclasses.replace(asked.method, corrections=named, rule=None, **of_method)
    return dataclasses.replace(asked, method=method, training=training)


def updates_of(training: TrainingSettings, updates_per_epoch: float | None) -> int:
    """Return N, the updates of every unit.

    Args:
        training: how much is asked for.
        updates_per_epoch: of a group; None for data without a length.

    Raises:
        ConfigError: there would be none, or more than can be counted.
    """
    if updates_per_epoch is None and training.updates is None:
        raise ConfigError(
            f"the data has no length to count epochs by (epochs: {epochs_of(training)}, updates: {training.updates}); "
            "say how many updates"
        )
    updates_per_epoch = updates_per_epoch or 0
    updates = round(epochs_of(training) * updates_per_epoch) if training.updates is None else training.updates
    if updates < 1 and training.updates is None and not updates_per_epoch:
        raise ConfigError(
            f"the data has not as many samples as the groups take in one update (batch_size: {training.batch_size}); "
            "take smaller batches or fewer groups"
        )
    if updates < 1:
        raise ConfigError(
            f"the run has no update (epochs: {epochs_of(training)}, updates: {training.updates}); train longer"
        )
    if not whole(updates):
        raise ConfigError(f"the run would never end (epochs: {epochs_of(training)}); train fewer")
    return updates


def end_of(training: TrainingSettings, updates: int) -> int:
    """Return the updates after which a run ends for which so many are planned.

    Raises:
        ConfigError: the end is none of the run.
    """
    if training.until is None:
        return updates
    if not 1 <= training.until <= updates:
        raise ConfigError(f"a run ends within what is planned (training.until: {training.until}, updates: {updates})")
    return training.until


def make_watch(test: Slices | None, output: OutputSettings, updates_per_epoch: float) -> Watch:
    """Return what the observer sees.

    Raises:
        ConfigError: a frequency has no meaning.
    """
    if output.log_every < 1:
        raise ConfigError(f"reports come every so many updates, at least 1 (log_every: {output.log_every})")
    if output.evaluate_every < 0:
        raise ConfigError(f"evaluations come every so many epochs (evaluate_every: {output.evaluate_every})")
    every = max(1, round(output.evaluate_every * updates_per_epoch)) if output.evaluate_every else None
    return Watch(output.log_every, every, 0 if test is None else len(test))


def refuse_sparse(found: Probed, why: str) -> None:
    """Refuse a stage whose parameters get sparse gradients.

    Args:
        found: what came of its trial.
        why: said with the error.

    Raises:
        ConfigError: one does.
    """
    if found.sparse is not None:
        raise ConfigError(
            f"a gradient is sparse, but {why} (parameter: {found.sparse}); make the layer with sparse=False"
        )
