"""What units are called where people read of them.

Does not know: files, pictures.
"""

from collections.abc import Iterable

from stalegrid.programs import Unit, server


def names(units: Iterable[Unit]) -> dict[Unit, str]:
    """Name the units of a run; where there are servers, the others are learners.

    Args:
        units: of the run, in any order.

    Returns:
        Names in the order of the units.
    """
    found = list(units)
    served = any(is_server(unit) for unit in found)
    return {unit: _name(unit, served) for unit in found}


def is_server(unit: Unit) -> bool:
    """Return whether a unit is a parameter server."""
    return unit == server(unit.stage)


def _name(unit: Unit, served: bool) -> str:
    return f"learner {unit.group}" if served and unit.group >= 0 else str(unit)
