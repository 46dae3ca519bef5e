"""What groups exchange and when, settled from what was asked for.

Does not know: stages' tensors, engines.
"""

from stalegrid.config import Settings
from stalegrid.consensus.matrices import Mixing
from stalegrid.consensus.matrices import mixing as mixing_of
from stalegrid.consensus.rounds import AllReduce, Averaging
from stalegrid.errors import ConfigError
from stalegrid.methods import methods
from stalegrid.methods.methods import Method
from stalegrid.programs.grid import Grid
from stalegrid.programs.lateral import Lateral, NoLateral


def mixing_name(method: Method, settings: Settings, grid: Grid) -> str:
    """Return the name of the mixing, none for a single group.

    Raises:
        ConfigError: the method needs one to be named, or there is none of that name.
    """
    chosen = method.mixing if settings.mixing is None else settings.mixing
    if settings.mixing is None and chosen == methods.NO_MIXING and grid.groups > 1:
        raise ConfigError(
            f"{method.name} says nothing of groups (groups: {grid.groups}); name a mixing: {', '.join(methods.MIXINGS)}"
        )
    if chosen not in methods.MIXINGS:
        raise ConfigError(f"unknown mixing (mixing: {chosen!r}); there are: {', '.join(methods.MIXINGS)}")
    return methods.NO_MIXING if grid.groups == 1 else chosen


def make_lateral(mixing: str, settings: Settings, grid: Grid, updates: int) -> Lateral:
    """Return when groups exchange.

    Args:
        mixing: its name.
        settings: of the run.
        grid: of the run.
        updates: N.

    Raises:
        ConfigError: the topology, period or lag make no sense.
    """
    # A topology that is asked for is checked even where a single group does not use it.
    graph: Mixing = mixing_of(settings.topology, grid.groups, settings.edges, settings.matrix)
    if mixing == methods.NO_MIXING:
        return NoLateral()
    if mixing == methods.ALL_REDUCE:
        return AllReduce(grid.groups)
    adapt_first = mixing == methods.ADAPT_THEN_COMBINE
    rounds = Averaging(graph, adapt_first, settings.period, settings.lag, updates)
    if all(rounds.turn(n) is None for n in range(updates)):
        raise ConfigError(
            f"the groups would never mix (period: {settings.period}, lag: {settings.lag}, updates: {updates}); train "
            "longer, or take mixing none"
        )
    return rounds
