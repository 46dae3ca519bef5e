"""``python -m bench [ROW ...] [--turns N]``: run benchmarks, print ratios, write ``bench/results.json``."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import cpu, emulated, frontier, prediction, server, simulator, softsync, virtual
from bench.measure import Ratio, as_json

ROWS = {
    "emulated": emulated.run,
    "frontier": frontier.run,
    "prediction": prediction.run,
    "cpu": cpu.run,
    "simulator": simulator.run,
    "virtual": virtual.run,
    "server": server.run,
    "softsync": softsync.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="Speed, as ratios against a peer or an ideal.")
    parser.add_argument("rows", nargs="*", help=f"which of {', '.join(ROWS)}; all if left out")
    parser.add_argument("--turns", type=int, default=5, help="how often each competitor is measured, in turn")
    parser.add_argument(
        "--out",
        type=Path,
        help="file for the results, whose other rows are kept; bench/results.json for a run of all rows",
    )
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    ratios = [r for row in options.rows or ROWS for r in ROWS[row](options.turns)]
    _show(ratios)
    out = options.out or (None if options.rows else Path(__file__).parent / "results.json")
    if out is not None:
        kept = json.loads(out.read_text())["ratios"] if out.exists() else []
        written = as_json(ratios)
        measured = {r.row for r in ratios}
        written["ratios"] = [r for r in kept if r["row"] not in measured] + written["ratios"]
        out.write_text(json.dumps(written, indent=2) + "\n")


def _show(ratios: list[Ratio]) -> None:
    table = Table("row", "ratio", "median", "least", "greatest", "goal", "reached")
    for r in ratios:
        reached = "" if r.goal == "<= inf" or r.goal == ">= 0" else "yes" if r.reached else "NO"
        goal = r.goal if reached else "-"
        table.add_row(r.row, r.what, f"{r.median:.3f}", f"{r.low:.3f}", f"{r.high:.3f}", goal, reached)
    console = Console()
    console.print(table)
    for name, value in {k: v for r in ratios for k, v in r.figures.items()}.items():
        console.print(f"  {name}: {value:.4g}", highlight=False)


if __name__ == "__main__":
    main()
