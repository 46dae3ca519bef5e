"""Corrections: what staleness does to a gradient or a learning rate, one small file a rule.

Does not know: schedules, other units.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.base import Correction, Update
from stalegrid.stages.corrections.clip import Clip
from stalegrid.stages.corrections.delay_compensation import AdaptiveDelayCompensation, DelayCompensation
from stalegrid.stages.corrections.error_feedback import ErrorFeedback, ErrorFeedbackByStaleness
from stalegrid.stages.corrections.gap_aware import GapAware
from stalegrid.stages.corrections.shrink import Shrink
from stalegrid.stages.corrections.staleness import ExponentialStaleness, InverseStaleness, PipeMareRate, StabilityRate
from stalegrid.stages.site import Site
from stalegrid.written import is_path, unknown, value_of

__all__ = ["CORRECTIONS", "RULES", "Correction", "Maker", "Update", "makers", "ruled", "vectors_of"]

Maker = Callable[[Site], Correction]
"""What makes the correction of one unit; a class that takes a site is one."""

CORRECTIONS: dict[str, Callable[..., Correction]] = {
    "inverse-staleness": InverseStaleness,
    "exponential-staleness": ExponentialStaleness,
    "pipemare-rate": PipeMareRate,
    "stability-rate": StabilityRate,
    "shrink": Shrink,
    "dc-asgd": DelayCompensation,
    "dc-asgd-adaptive": AdaptiveDelayCompensation,
    "gap-aware": GapAware,
    "error-feedback": ErrorFeedback,
    "error-feedback-by-staleness": ErrorFeedbackByStaleness,
    "clip": Clip,
}
"""The corrections by name; those with a number take it after the name, as in ``shrink=0.7``."""
RULES = {
    "constant": "none",
    "inverse": "inverse-staleness",
    "exponential": "exponential-staleness",
    "dc": "dc-asgd",
    "gap": "gap-aware",
}
"""The corrections that are rules for what staleness does, by short names."""
PLAIN = ("inverse-staleness", "stability-rate", "gap-aware")
"""Those that have no number."""


def makers(named: Sequence[str | Maker]) -> tuple[Maker, ...]:
    """Read corrections as users write them.

    Args:
        named: such as ``shrink=0.7``, the path ``PACKAGE.MODULE:NAME`` of what makes one, or what makes one itself, in
            the order in which they act; ``none`` alone for none.

    Raises:
        ConfigError: one has no such name, or its number is none.
    """
    return () if list(named) == ["none"] else tuple(map(_maker, named))


def vectors_of(named: Sequence[str | Maker]) -> int:
    """Return how many vectors as large as the parameters corrections keep, as their classes say.

    Args:
        named: as users write them; what a function makes is not known before it is made, and counts as none.

    Raises:
        ConfigError: one has no such name, or its number is none.
    """
    kinds = (make.args[0] if isinstance(make, partial) and make.args else make for make in makers(named))
    return sum(getattr(kind, "vectors", 0) for kind in kinds)


def ruled(rule: str) -> list[str]:
    """Return the corrections of a rule.

    Args:
        rule: its name, with a number if it has one, as in ``dc=0.04``.

    Raises:
        ConfigError: there is none of that name.
    """
    name, equals, number = rule.strip().partition("=")
    if name not in RULES or (name == "constant" and equals):
        raise ConfigError(f"unknown rule (method.rule: {rule!r}); there are: {', '.join(RULES)}")
    return [f"{RULES[name]}{equals}{number}"]


def _maker(named: str | Maker) -> Maker:
    if not isinstance(named, str):
        return named
    text = named.strip()
    if is_path(text):
        return _own(text)
    name, equals, number = text.partition("=")
    if name not in CORRECTIONS:
        raise ConfigError(unknown("correction", text, list(CORRECTIONS)))
    if not equals:
        return CORRECTIONS[name]
    if name in PLAIN:
        raise ConfigError(f"{name} takes no number (corrections: {text!r})")
    try:
        value = float(number)
    except ValueError as problem:
        raise ConfigError(f"{name} takes a number (corrections: {text!r}), as in {name}=0.5") from problem
    if not math.isfinite(value):
        raise ConfigError(f"{name} takes a finite number (corrections: {text!r}), as in {name}=0.5")
    return partial(_numbered, CORRECTIONS[name], value)


def _numbered(kind: Callable[..., Correction], number: float, site: Site) -> Correction:
    return kind(site, number)


def _own(path: str) -> Maker:
    found: Maker = value_of(path, "corrections")
    if not callable(found):
        raise ConfigError(
            f"this makes no correction (corrections: {path}, it is: {type(found).__name__}); inherit from "
            "stalegrid.Correction"
        )
    return found
