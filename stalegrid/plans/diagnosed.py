"""Which versions of a run are diagnosed, and what of it can be: settled before anything starts.

Does not know: what a diagnosis says, engines.
"""

from collections.abc import Sequence

from stalegrid.errors import ConfigError
from stalegrid.observe import OutputSettings
from stalegrid.programs import Looks


def looks_of(output: OutputSettings, bounds: Sequence[int], groups: int, updates: int) -> Looks | None:
    """Return when units show what a diagnosis is made of; None where nothing is to be diagnosed.

    Args:
        output: what is asked for.
        bounds: staleness of each stage in updates, once the pipeline is full.
        groups: S.
        updates: N.

    Raises:
        ConfigError: no version of the run would be.
    """
    every = output.diagnose
    if every < 0:
        raise ConfigError(f"versions are diagnosed every so many updates, 0 for none (output.diagnose: {every})")
    if not every:
        return None
    if every > updates:
        raise ConfigError(
            f"the run ends before a version is diagnosed (output.diagnose: {every}, updates: {updates}); take a "
            "smaller number, or train longer"
        )
    before = {1} if groups > 1 else set()
    return Looks(every, tuple(tuple(sorted({0, bound} | before)) for bound in bounds))
