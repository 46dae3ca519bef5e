"""Hosts that have told what they are."""

from typing import Any

from stalegrid.engines import Surveyed


def hosts(told: dict[str, Any], *changes: dict[str, Any], processes: int = 2) -> list[Surveyed]:
    """Return hosts a, b, .. that have told the same but for some values."""
    return [Surveyed("abc"[i], {**told, **change}, processes) for i, change in enumerate(changes)]
