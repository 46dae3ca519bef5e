"""Estimates which grid, method and staleness suit given devices."""

import dataclasses
import math
import os
from argparse import Namespace

from stalegrid.commands.options import METHODS, MODEL, Parser, add_fields, add_own, config_of, fields_of
from stalegrid.commands.profile import MACHINE, add_parts
from stalegrid.errors import ConfigError
from stalegrid.observe import wide
from stalegrid.planner import Candidate, planning, show
from stalegrid.programs import MOST
from stalegrid.recipes import RunConfig
from stalegrid.timing import CostTable, DeviceTable, read_costs

ABOUT = "estimate which grid, method and staleness suit given devices"
USAGE = "--units N [options]"

_ASKED = ("grid", "method", "mixing", "devices")
_TARGETS = "training.targets"
_LEFT_OUT = ("method.name", "method.corrections", "method.rule", "method.clip", "mixing.momentum", "devices.emulate")


def ask(parser: Parser) -> None:
    """Add the options."""
    own = parser.add_argument_group("what is planned")
    add_own(own, "--units", int, "how many devices there are, one a unit", required=True)
    add_own(own, METHODS, list[str] | None, "what to compare, such as dsp,1f1b; a usual choice if left out")
    add_own(own, "--memory", float | None, "GB that a device has for training")
    add_own(own, "--all", bool, "show all candidates, not the best of each method", default=False)
    add_own(own, "--measure", int, "run so many of the fastest on real processes", default=0)
    add_own(own, "--measure-updates", int, "updates of each such run", default=40)
    add_parts(own)
    add_own(own, "--copies", int | None, "processes that measure at once; one a device if there are cores for them")
    add_fields(parser, [path for path in (*fields_of(*MODEL, *_ASKED), *MACHINE, _TARGETS) if path not in _LEFT_OUT])


def run(options: Namespace) -> int:
    """Plan."""
    from stalegrid.engines import profile
    from stalegrid.recipes import make_task

    config = config_of(options)
    devices = config.devices
    config.training.check_alike("a plan compares grids of several numbers of groups")
    if options.measure and (devices.link or devices.lateral_link or devices.outages):
        raise ConfigError(
            f"links and outages are in virtual time only (measure: {options.measure}); leave out --measure, or them"
        )
    if not 1 <= options.units <= MOST:
        raise ConfigError(f"there are 1 to {MOST} devices (units: {options.units})")
    if options.memory is not None and not math.isfinite(options.memory):
        raise ConfigError(f"memory is a number of GB (memory: {options.memory}); leave it out where it is no limit")
    if config.devices.costs is None:
        # As many at once as there will be here: they compete for caches and memory as the units of a run do.
        copies = options.copies or min(options.units, max(1, (os.cpu_count() or 1) // config.engine.threads))
        table: CostTable | DeviceTable = profile(make_task(config), config, config.engine, options.parts, copies)
    else:
        table = read_costs(config.devices.costs)
        if options.measure and isinstance(table, DeviceTable) and table.links:
            raise ConfigError(
                f"links are in virtual time only, and the table has some (measure: {options.measure}, costs: "
                f"{config.devices.costs}); leave out --measure"
            )
        training = dataclasses.replace(config.training, batch_size=table.batch_size)
        config = dataclasses.replace(config, training=training)
    memory = None if options.memory is None else round(options.memory * 1e9)
    states = planning.STATES.get(config.optimizer.name or "sgd", planning.UNKNOWN_STATES)
    names = planning.USUAL if options.methods is None else tuple(options.methods)
    question = planning.Question(table, options.units, names, memory, states)
    found = planning.fitting(planning.candidates(question, config), memory)
    best, why = planning.recommend(found, config.method.within)
    shown = found if options.all else planning.shortened(found, best)
    chosen = [i for i, c in enumerate(shown) if i < options.measure or (options.measure and c is best)]
    measured = {i: _measured(config, shown[i], table, options.measure_updates) for i in chosen}
    console = wide()
    console.print(show.candidates(shown, best, measured))
    gain = [] if best.gain is None else [f"  {best.gain}"]
    for line in (_PLANNED, f"* {why}:", f"  {show.command(best)}", *gain):
        console.print(line, soft_wrap=True)
    return 0


def _measured(config: RunConfig, candidate: Candidate, table: CostTable | DeviceTable, updates: int) -> float:
    """Return milliseconds a batch on real processes: of the model, or of sleep where only its costs are known."""
    from stalegrid.recipes import make_task
    from stalegrid.studies import emulate, rehearse

    if config.devices.costs is None:
        return rehearse(make_task(config), candidate, updates)
    return emulate(candidate, table, updates)


_PLANNED = """\
Shares of a device's time: busy with actions, sending (handling messages, or waiting for one that is under way) and
waiting. Staleness of each stage, in updates. MB a stage: parameters, gradients, optimizer state and batches in flight.
MB sent: by all units to each other for an update, on average; kB/sample: likewise, for a sample of it."""
