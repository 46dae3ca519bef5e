"""Measures speed."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

ABOUT = "measure speed, as ratios against peers and ideals"
USAGE = "[ROW ...] [options]"


def ask(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("rows", type=str, nargs="*", help="which; all if left out, and a wrong name lists them")
    parser.add_argument("--turns", type=int, default=5, help="how often each competitor is measured, in turn")
    parser.add_argument("--out", type=Path, default=Path("bench/results.json"), help="file; keeps its other rows")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder with CIFAR-10's files")


def run(options: Namespace) -> int:
    """Measure."""
    from stalegrid.bench.rows import bench

    bench(options.rows, options.turns, options.out, options.data_dir)
    return 0
