"""What of a configuration was chosen, or settled for the run: not what is as it is unless anybody asks.

Does not know: how a run is planned.
"""

import json
from typing import Any

from stalegrid.consensus import Mixing, find_mixing
from stalegrid.errors import ConfigError
from stalegrid.methods import METHODS, SERVER_METHODS, Method
from stalegrid.observe import Record
from stalegrid.plans import Choices
from stalegrid.report.page import section, table
from stalegrid.report.told import Told
from stalegrid.written import groups_of, is_path, text_of

ALWAYS = ("method.name", "method.staleness", "grid.groups", "grid.stages", "grid.cuts", "engine.kind")
"""What is told even where nobody chose it."""

_NOTE = "What was chosen, or settled for this run; all else is as it is unless asked otherwise. config.yaml says all."


def chosen_section(run: Told) -> str:
    """Return the part of a page."""
    rows = [(path, shown(value)) for path, value in chosen(run.config).items()]
    return section("Configuration", [table(("setting", "value"), rows)], _NOTE)


def chosen(config: Record) -> dict[str, Any]:
    """Return the settings that differ from what they are unless anybody asks, and what was settled, by their paths."""
    usual = _usual(config)
    return {
        path: value
        for path, value in flat(config).items()
        # What is left to the program is no choice, and neither is what there is nothing of.
        if value not in (None, "auto", [], usual.get(path)) or (path in ALWAYS and value)
    }


def flat(config: Record) -> dict[str, Any]:
    """Return all settings by their paths."""
    return {f"{group}.{name}": value for group, fields in config.items() for name, value in fields.items()}


def shown(value: Any) -> str:
    """Return the value of a setting as people read it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _usual(config: Record) -> dict[str, Any]:
    """Return what settings are unless anybody asks, as far as groups and the method of a run say so."""
    kinds = groups_of(Choices).items()
    found = {f"{group}.{name}": text_of(value) for group, kind in kinds for name, value in vars(kind()).items()}
    method = next((m for m in (*METHODS, *SERVER_METHODS) if m.name == config["method"]["name"]), None)
    if method is None:
        return found
    found["method.corrections"] = text_of(method.corrections) or ["none"]
    if not isinstance(method, Method):
        return found | {"servers.softsync": method.splits or (config.get("servers") or {}).get("learners")}
    found |= {f"method.{name}": text_of(getattr(method, name)) for name in ("view", "micro_batches", "reduction")}
    return found | _of_mixing(method, config)


def _of_mixing(method: Method, config: Record) -> dict[str, Any]:
    groups, kind = (config.get("grid") or {}).get("groups"), (config.get("mixing") or {}).get("kind")
    usual = "none" if groups == 1 else text_of(method.mixing)
    turns = {f"mixing.{name}": text_of(value) for name, value in vars(method.turns).items()}
    if turns["mixing.topology"] is None and (known := _published(kind or usual)) is not None:
        turns["mixing.topology"] = known.topology
    return {**turns, "mixing.kind": usual}


def _published(kind: str) -> Mixing | None:
    """Return a mixing by its name; None for one that is not here: what a file names is not loaded to look at it."""
    try:
        return None if is_path(kind) else find_mixing(kind)
    except ConfigError:
        return None
