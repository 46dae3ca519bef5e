"""Tables of costs and candidates for the console.

Does not know: how their numbers were made.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table

from stalegrid.config import option_of
from stalegrid.engines.settings import EngineSettings
from stalegrid.methods.choose import find_grid
from stalegrid.observe.tables import plain
from stalegrid.planner.planning import Candidate
from stalegrid.timing.costs import CostTable
from stalegrid.timing.settings import DeviceSettings
from stalegrid.written.groups import text_of


def costs(table: CostTable) -> Table:
    """Show what the parts of a model cost."""
    shown = plain("part", "forward ms", "backward ms", "update ms", "mix ms", "output kB", "parameters kB", "graph kB")
    for part in table.parts:
        times = (part.forward, part.backward, part.update, part.mix)
        sizes = (part.output, part.parameters, part.graph)
        shown.add_row(part.name, *(f"{ms:.3g}" for ms in times), *(f"{size / 1000:,.0f}" for size in sizes))
    return shown


def candidates(found: Sequence[Candidate], best: Candidate, measured: dict[int, float]) -> Table:
    """Show candidates, fastest first.

    Args:
        found: which.
        best: the recommended one, which is marked.
        measured: milliseconds a batch on real processes, by position in ``found``.
    """
    heads = [
        "",
        "method",
        "S x K",
        "M",
        "ms/batch",
        "samples/s",
        "busy",
        "waiting",
        "sending",
        "staleness",
        "MB a stage",
    ]
    shown = plain(*heads, *(["measured", "estimated/measured"] if measured else []))
    for i, c in enumerate(found):
        shares = (c.estimate.busy, c.estimate.waiting, c.estimate.sending)
        row = [
            "*" if c is best else "",
            find_grid(c.settings.method.name).name,
            f"{c.grid.groups} x {c.grid.stages}",
            str(c.schedule.micro_batches),
            f"{c.estimate.batch:.4g}",
            f"{c.samples_per_second:,.4g}",
            *(f"{share:.0%}" for share in shares),
            _runs(c.staleness),
            _runs([f"{size / 1e6:.3g}" for size in c.memory]),
        ]
        if measured:
            seen = measured.get(i)
            row += ["", ""] if seen is None else [f"{seen:.4g} ms", f"{c.estimate.batch / seen:.3f}"]
        shown.add_row(*row)
    return shown


def command(candidate: Candidate) -> str:
    """Return the options of ``stalegrid train`` that say what a candidate is."""
    settings = candidate.settings
    settings = replace(settings, devices=DeviceSettings(), engine=EngineSettings())
    method, said = find_grid(settings.method.name), settings.plain()
    usual: dict[str, object] = {"micro_batches": method.micro_batches, "kind": text_of(method.mixing), "cuts": []}
    if candidate.grid.groups == 1:
        usual["kind"] = "none"
    first = {"method.name": method.name, "grid.groups": candidate.grid.groups, "grid.stages": candidate.grid.stages}
    rest = {
        f"{group}.{field}": value
        for group, fields in said.items()
        for field, value in fields.items()
        if value != usual.get(field)
    }
    options = (f"{option_of(type(settings), path)} {_written(value)}" for path, value in {**first, **rest}.items())
    return "stalegrid train " + " ".join(options)


def _written(value: object) -> str:
    if isinstance(value, list) and not any(isinstance(entry, list) for entry in value):
        return ",".join(map(str, value))
    return shlex.quote(json.dumps(value) if isinstance(value, list | bool) else str(value))


def _runs(values: Sequence[object]) -> str:
    return ",".join(map(str, values)) if len(values) <= 8 else f"{values[0]},{values[1]},...,{values[-1]}"
