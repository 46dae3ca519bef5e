"""What the parts of a real model cost on every device of a run, and how their hosts are linked, measured.

Does not know: what a part costs, how a link is measured, what comes of it.

Under a launcher each process is a device.  All measure at once, as they will train at once: those of one host compete
for it.  Before, when nothing else happens, hosts measure the ways between them.
"""

import dataclasses
import json
from collections.abc import Callable

from stalegrid.engines.distributed import talk
from stalegrid.engines.distributed.survey import Survey, joined
from stalegrid.engines.profiling import PARTS, places, profile
from stalegrid.engines.settings import EngineSettings
from stalegrid.engines.surroundings import Surroundings
from stalegrid.errors import EngineError
from stalegrid.plans import Choices, Task
from stalegrid.timing import CostTable, DeviceTable, Link


def profile_devices(
    task: Task, asked: Choices, engine: EngineSettings, common: str, first: Callable[[], None], parts: int = PARTS
) -> tuple[int, DeviceTable]:
    """Measure a model together with the other processes that a launcher has started.

    Args:
        task: what is trained, the same in all; left as it is.
        asked: as for :func:`stalegrid.engines.profile`; the first process says where all cut.
        engine: device and threads are used; the deadline is for signs of life of others.
        common: what all processes must be asked for alike, as text.
        first: called in the first process before anything is measured; may refuse.
        parts: how many at most.

    Returns:
        Rank of this process, and the table, which is the same in every process.

    Raises:
        ConfigError: something cannot be run, or processes are asked for different things.
        EngineError: processes cannot meet, or one is lost.
    """
    with joined(engine.deadline) as (peers, found):
        links = _links(found)
        peers.check_same("switches of torch", lambda: Surroundings.here().text())
        peers.check_same("settings", lambda: common)
        peers.check_task(task)

        def cuts() -> bytes:
            first()
            return json.dumps(places(task, asked, engine, parts)).encode()

        grid = dataclasses.replace(asked.grid, cuts=json.loads(talk.spread(cuts, peers.patience)))
        alike = dataclasses.replace(asked, grid=grid)

        def column() -> bytes:
            made = profile(task, alike, engine, parts, local_rank=peers.local_rank)
            return json.dumps(made.plain()).encode()

        columns = [CostTable.parse(json.loads(text)) for text in talk.gather(column, peers.patience)]
    return peers.rank, DeviceTable(tuple(columns), tuple(found.hosts[place].name for place in found.places), links)


def _links(found: Survey) -> dict[tuple[str, str], Link]:
    """Return how hosts are linked, by their names.

    Raises:
        EngineError: there is no way between two of them.
    """
    names = [host.name for host in found.hosts]
    lost = [f"{names[a]} -> {names[b]} ({way})" for (a, b), way in found.links.items() if isinstance(way, str)]
    if lost:
        raise EngineError(
            f"hosts do not reach each other: {'; '.join(lost)}; stalegrid doctor, started alike, says what to change"
        )
    return {
        (names[a], names[b]): Link(way.latency, way.bandwidth)
        for (a, b), way in found.links.items()
        if not isinstance(way, str)
    }
