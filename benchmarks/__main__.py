"""``python -m benchmarks ROW ... --turns N``: measures speed, as ratios against peers and ideals."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import bench
from stalegrid.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure rows and return the exit status: 0 well, 2 for a wrong request."""
    parser = ArgumentParser(prog="python -m benchmarks", description="measure speed against peers and ideals")
    parser.add_argument("rows", type=str, nargs="*", help="which; all if left out, and a wrong name lists them")
    parser.add_argument("--turns", type=int, default=5, help="how often each competitor is measured, in turn")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results.json"), help="file; keeps its other rows")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder with CIFAR-10's files")
    options = parser.parse_args(arguments)
    try:
        bench(options.rows, options.turns, options.out, options.data_dir)
    except ConfigError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
