"""Tables of costs and candidates for the console.

Does not know: how their numbers were made.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rich.table import Table

from stalegrid.config import option_of
from stalegrid.consensus import find_mixing
from stalegrid.methods import find_grid
from stalegrid.observe import plain
from stalegrid.planner.planning import Candidate
from stalegrid.timing import CostTable, DeviceSettings, DeviceTable
from stalegrid.written import groups, to_line

SHOWN = 12
"""Ways between hosts that are listed."""


def costs(table: CostTable) -> Table:
    """Show what the parts of a model cost."""
    shown = plain("part", "forward ms", "backward ms", "update ms", "mix ms", "output kB", "parameters kB", "graph kB")
    for part in table.parts:
        times = (part.forward, part.backward, part.update, part.mix)
        sizes = (part.output, part.parameters, part.graph)
        shown.add_row(part.name, *(f"{ms:.3g}" for ms in times), *(f"{size / 1000:,.0f}" for size in sizes))
    return shown


def devices(table: DeviceTable) -> Table:
    """Show what the parts of a model cost on each device: a batch's forward, backward and update together."""
    shown = plain("part", *(f"{i} {host} ms" for i, host in enumerate(table.hosts)), "output kB", "parameters kB")
    for i, part in enumerate(table.parts):
        costs = (column.parts[i] for column in table.columns)
        times = (f"{cost.forward + cost.backward + cost.update:.3g}" for cost in costs)
        shown.add_row(part.name, *times, *(f"{size / 1000:,.0f}" for size in (part.output, part.parameters)))
    return shown


def links(table: DeviceTable) -> list[str]:
    """Say how hosts are linked, the slowest ways first."""
    slowest = sorted(table.links.items(), key=lambda way: way[1].mbits)
    lines = [f"{a} > {b}: {link.latency:.3g} ms, {link.mbits:,.4g} Mbit/s" for (a, b), link in slowest[:SHOWN]]
    return lines + ([f"and {len(slowest) - SHOWN} more, none slower"] if len(slowest) > SHOWN else [])


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
        "MB sent",
        "kB/sample",
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
            f"{c.bytes_per_update / 1e6:,.4g}",
            f"{c.bytes_per_sample / 1e3:,.4g}",
        ]
        if measured:
            seen = measured.get(i)
            row += ["", ""] if seen is None else [f"{seen:.4g} ms", f"{c.estimate.batch / seen:.3f}"]
        shown.add_row(*row)
    return shown


def command(candidate: Candidate) -> str:
    """Return the options of ``stalegrid train`` that say what a candidate is."""
    settings, grid = replace(candidate.settings, devices=DeviceSettings()), candidate.grid
    method, said = find_grid(settings.method.name), dict(_options(groups.plain(settings, _FIRST)))
    usual: dict[str, object] = {
        "method.micro_batches": method.micro_batches,
        "mixing.kind": groups.text_of(method.mixing) if grid.groups > 1 or find_mixing(method.mixing).alone else "none",
        "grid.cuts": [],
    }
    chosen = [path for path, value in said.items() if value != usual.get(path) and path not in _FIRST]
    options = (_said(option_of(type(settings), path), _written(path, said[path])) for path in (*_FIRST, *chosen))
    return "stalegrid train " + " ".join(options)


_FIRST = ("method.name", "grid.groups", "grid.stages")
"""What a command says in any case, and before the rest."""


def _options(said: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, object]]:
    """Return what is said, option by option; each argument of a factory is one."""
    for group, fields in said.items():
        for field, value in fields.items():
            if isinstance(value, Mapping):
                yield from ((f"{group}.{field}.{name}", entry) for name, entry in value.items())
            else:
                yield f"{group}.{field}", value


def _said(option: str, value: str) -> str:
    # A value like an option would be taken for one.
    return f"{option}={shlex.quote(value)}" if value.startswith("--") else f"{option} {shlex.quote(value)}"


def _written(path: str, value: object) -> str:
    if path.count(".") > 1:  # an argument, whose type only its value tells
        return to_line(value)
    if isinstance(value, list) and not any(isinstance(entry, list) or "," in str(entry) for entry in value):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, list | bool) else str(value)


def _runs(values: Sequence[object]) -> str:
    return ",".join(map(str, values)) if len(values) <= 8 else f"{values[0]},{values[1]},...,{values[-1]}"
