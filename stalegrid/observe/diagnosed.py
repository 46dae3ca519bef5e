"""What a diagnosis says, in short.

Does not know: how anything of it was measured.
"""

from stalegrid.observe.records import Record

DIAGNOSIS = "diagnosis"
"""The kind of its records, and the entry of a summary that has the last one."""


def line_of(record: Record) -> str:
    """Return a diagnosis as a line for the console: what was measured, and the bound where there is one."""
    parts = [
        f"diagnosis at version {record['version']}",
        f"squared gradient {record['gradient_square']:.3g} (average {record['gradient_square_average']:.3g})",
        *_bounded("noise", record["noise"]["measured"], record["noise"]["bound"]),
    ]
    stale = [stage for stage in record["stages"] if stage["error"] is not None]
    if stale:
        most = max(stale, key=lambda stage: float(stage["error"]))
        parts += _bounded("staleness error", most["error"], most["bound"])
    if record["consensus"] is not None:
        parts += _bounded("consensus distance", record["consensus"]["distance"], record["consensus"]["bound"])
    if record["rate_limit"] is not None:
        parts += _bounded("rate", record["rate"], record["rate_limit"])
    return "  ".join(parts)


def _bounded(name: str, value: float | None, bound: float | None) -> list[str]:
    if value is None:
        return []
    return [f"{name} {value:.3g}" + ("" if bound is None else f" (bound {bound:.3g})")]
