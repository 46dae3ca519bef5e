"""Repeats a recorded run with parameter servers."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from stalegrid.observe.stream import console

ABOUT = "repeat a run with parameter servers in the order that it recorded, to the same bits"
USAGE = "DIR"


def ask(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("run", type=Path, help="folder of a run")


def run(options: Namespace) -> int:
    """Replay."""
    from stalegrid.recipes.task import make_task
    from stalegrid.studies.replay import recorded_config, replay

    config = recorded_config(options.run)
    made = replay(make_task(config), config, options.run)
    same = "the same bits" if made.equal else f"OTHER bits (largest difference: {made.difference:g})"
    console().print(f"version {made.version}: the replay has {same} as the run", soft_wrap=True)
    return 0 if made.equal else 1
