"""Measures what the parts of a model cost, on this machine or on all those of a launcher."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from stalegrid.commands.options import MODEL, Parser, add_fields, add_own, config_of, fields_of
from stalegrid.errors import ConfigError
from stalegrid.observe import wide
from stalegrid.planner import show
from stalegrid.recipes import RunConfig
from stalegrid.timing import CostTable, DeviceTable
from stalegrid.written import exists, is_folder

ABOUT = "measure what the parts of a model cost on this machine, or under torchrun on all devices of all hosts"
USAGE = "[options]"

MACHINE = (
    "training.batch_size",
    "training.dtype",
    "training.precision",
    "training.channels_last",
    "training.seed",
    "engine.device",
    "engine.threads",
    "grid.cuts",
    "grid.tied",
)
"""What a batch takes depends on."""


def ask(parser: Parser) -> None:
    """Add the options."""
    own = parser.add_argument_group("what is measured")
    add_own(own, "--out", Path | None, "file for the costs")
    add_parts(own)
    add_own(own, "--copies", int, "processes that measure at once", default=1)
    add_fields(parser, [*fields_of(*MODEL), *MACHINE, "engine.deadline"])


def add_parts(own: Any) -> None:
    """Add how finely a model is measured, to a group of options."""
    add_own(own, "--parts", int, "parts in which the model is measured, at most", default=16)


def run(options: Namespace) -> int:
    """Profile."""
    from stalegrid.engines import torchrun

    config = config_of(options)
    made = _together(options, config) if torchrun.active() else _alone(options, config)
    if made is None:
        return 0
    console = wide()
    if isinstance(made, CostTable):
        console.print(show.costs(made))
    else:
        console.print(show.devices(made))
        for line in show.links(made):
            console.print(line)
    if options.out is not None:
        made.write(options.out)
        console.print(f"costs are in {options.out}; give them with --costs {options.out}")
    return 0


def _alone(options: Namespace, config: RunConfig) -> CostTable:
    """Return what a device like that of this process takes."""
    from stalegrid.engines import profile
    from stalegrid.recipes import make_task

    _check(options.out)
    return profile(make_task(config), config, config.engine, options.parts, options.copies)


def _together(options: Namespace, config: RunConfig) -> DeviceTable | None:
    """Return what the devices of all processes take that a launcher has started, in the first one; None in others."""
    from stalegrid.engines import profile_devices
    from stalegrid.recipes import make_task

    if options.copies != 1:
        raise ConfigError(
            f"the processes that a launcher has started measure at once, each by itself (copies: {options.copies}); "
            "leave it out"
        )
    rank, made = profile_devices(
        make_task(config), config, config.engine, config.common(), lambda: _check(options.out), options.parts
    )
    return made if rank == 0 else None


def _check(out: Path | None) -> None:
    if out is not None and (exists(out) or not is_folder(out.parent)):
        raise ConfigError(f"the file exists, or its folder does not (out: {out}); name another one")
