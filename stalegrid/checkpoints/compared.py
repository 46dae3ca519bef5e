"""A run that goes on held against what it was at its beginning.

Does not know: what any setting does, what a model or data are.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from stalegrid.checkpoints.kept import Checkpoint
from stalegrid.errors import ConfigError

FREE = ("engine", "devices", "checkpoint", "output.trace", "output.loggers", "training.workers")
"""Settings, or whole groups, that decide where a run happens and what else is told of it, and no number."""

FIRST = (
    "model.name",
    "data.name",
    "method.name",
    "grid.groups",
    "grid.stages",
    "servers.learners",
    "servers.number",
    "training.updates",
    "training.epochs",
)
"""Settings without which nothing that was measured at the beginning fits."""

ORIGIN = "origin"
"""What a manifest calls what a run is made of; see :func:`stalegrid.plans.origin_of`."""

DEALT = "dealt"
"""What a manifest calls which samples groups have for their own; see :attr:`stalegrid.data.Dealt.digest`."""

BITS = {"stalegrid": "versions", "torch": "versions", "device": "devices", "threads": "numbers of threads"}
"""What a manifest says of that on which the last bits of sums may depend, and what they are."""

_SHOWN = 3  # differences that are told
_LONGEST = 120  # characters of a value that is told


def check_settings(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> None:
    """Check that a run that goes on is asked for what it was at its beginning, but for where it happens.

    Args:
        checkpoint: that it goes on from.
        settings: of the run, as plain values.

    Raises:
        ConfigError: something is not the same, so that it would not be the same run.
    """
    shown = unlike(checkpoint.manifest["settings"], settings)
    if shown:
        raise _other_settings(checkpoint, shown)


def check_first(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> None:
    """Check what can be checked before a run is planned with what was measured at its beginning.

    Args:
        checkpoint: that it goes on from.
        settings: that were asked for, as plain values.

    Raises:
        ConfigError: a setting is another one.
    """
    then = checkpoint.manifest["settings"]
    asked = {name: value for name, value in _flat(settings).items() if name in FIRST and name in _flat(then)}
    if shown := unlike({name: _flat(then)[name] for name in asked}, asked):
        raise _other_settings(checkpoint, shown)


def _other_settings(checkpoint: Checkpoint, shown: str) -> ConfigError:
    length = (
        "; schedules and the end of a run depend on how many updates are planned, so more of them are another run: "
        "begin one"
    )
    longer = any(f"{name}:" in shown for name in ("training.updates", "training.epochs", "training.until"))
    return ConfigError(
        f"a run goes on to the bit only as it began ({shown}, checkpoint: {checkpoint.folder}); ask for the same, "
        f"or go on in another shape, in a folder of its own (reshape){length if longer else ''}"
    )


def check_origin(checkpoint: Checkpoint, origin: Mapping[str, Any]) -> None:
    """Check that a run that goes on is made of what it was at its beginning.

    Args:
        checkpoint: that it goes on from.
        origin: what it is made of, by kind; see :func:`stalegrid.plans.origin_of`.

    Raises:
        ConfigError: something is another one.
    """
    then = checkpoint.manifest.get(ORIGIN, {})
    for what, now in origin.items():
        shown = _differences({what: then.get(what)}, {what: now})
        if shown:
            raise ConfigError(
                f"the checkpoint is of another run: it has other {what} ({shown}, checkpoint: {checkpoint.folder}); "
                f"{REMEDIES.get(what, 'give the same')}"
            )


REMEDIES = {
    "layers": "make the same model",
    "frozen values": "make the model with the same frozen parameters and buffers, and seed what is drawn for them",
    "data": "give the same data, in the same order",
    "optimizers": "give the same optimizer and schedule, which go on as they were saved",
}


def check_dealt(checkpoint: Checkpoint, dealt: str | None) -> None:
    """Check that groups of a run that goes on have the samples that they had at its beginning.

    Args:
        checkpoint: that it goes on from.
        dealt: which they have, see :attr:`stalegrid.data.Dealt.digest`; None where they share out each epoch.

    Raises:
        ConfigError: they have others.
    """
    if (then := checkpoint.manifest.get(DEALT)) != dealt:
        raise ConfigError(
            f"the groups have other samples for their own than they had (dealt: {dealt}, then: {then}, checkpoint: "
            f"{checkpoint.folder}): other labels, groups, split or seed, or another version of NumPy; give the same"
        )


def other_bits(checkpoint: Checkpoint, here: Mapping[str, Any]) -> list[str]:
    """Say what is not as at the beginning, so that the last bits of numbers may be others from here on.

    Args:
        checkpoint: that a run goes on from.
        here: the same facts of this process as in the manifest.
    """
    then = checkpoint.manifest
    return [
        f"the run goes on with other {what} than before ({name}: {here[name]}, then: {then.get(name)}): the last bits "
        "of its numbers may be others than without the interruption"
        for name, what in BITS.items()
        if here[name] != then.get(name)
    ]


def unlike(then: Mapping[str, Any], now: Mapping[str, Any], but: Collection[str] = ()) -> str:
    """Say which settings differ, empty for none.

    Args:
        then: plain settings of a run.
        now: those that are asked for.
        but: names of settings that may differ, beside :data:`FREE`.
    """
    both = [{name: value for name, value in _flat(one).items() if not _is_free(name, but)} for one in (then, now)]
    return "; ".join(_lines(*both))


def _is_free(name: str, but: Collection[str]) -> bool:
    return name in FREE or name.partition(".")[0] in FREE or name in but


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "; ".join(_lines(_flat(then), _flat(now)))


def _lines(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
    return [f"{name}: {_short(now.get(name))}, then: {_short(then.get(name))}" for name in names[:_SHOWN]]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return plain settings by their whole names, as JSON keeps them."""
    return dict(_entries(settings, before))


def _entries(settings: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{before}{name}.")
        else:
            yield before + name, list(value) if isinstance(value, tuple) else value
