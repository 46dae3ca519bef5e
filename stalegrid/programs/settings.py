"""Which agents there are: the shape of a grid, or learners and servers.

Does not know: how any of them trains.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from stalegrid.errors import ConfigError
from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class GridSettings(Group):
    """The grid of units.

    Args:
        groups: S, data-parallel groups; the method's own shape if left out.
        stages: K, pipeline stages; the method's own shape if left out.
        cuts: names of the modules that begin stages 1..K-1; balanced by measured time if left out.
        blocks: paths of parts of the model that are called in turn, each kept whole, such as layers.*; its forward is
            followed if left out.
        tied: where several stages would use a parameter: one trains it and the others have a mirror, or they are not
            cut apart.
    """

    NAME: ClassVar[str] = "grid"

    groups: int | None = None
    stages: int | None = None
    cuts: list[str] | None = None
    blocks: list[str] | None = None
    tied: Literal["mirror", "together"] = "mirror"

    def __post_init__(self) -> None:
        for cut in self.cuts if isinstance(self.cuts, list | tuple) else ():
            if not isinstance(cut, str):
                raise ConfigError(
                    f"a cut is the name of the module that begins a stage, as text (cuts: {self.cuts!r}, entry: "
                    f"{cut!r}); name one for each stage but the first, such as cuts=['{cut}'] for the module "
                    f"model.get_submodule('{cut}')"
                )
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Group):
    """Learners and parameter servers, for the methods that have them.

    Args:
        number: of servers over which the parameters are split.
        learners: number of learners (lambda); 4 if left out.
        softsync: n; an update averages over learners/n gradients, whoever sent them.
        max_staleness: bound on the staleness of every gradient; a learner that might exceed it waits.
        momentum_at: whether the server or each learner has the momentum.
        deliveries: record of the order in which a run took gradients, to be repeated on the simulator.
    """

    NAME: ClassVar[str] = "servers"
    OWN: ClassVar[str | None] = "number"

    number: int = 1
    learners: int | None = None
    softsync: int | None = None
    max_staleness: int | None = None
    momentum_at: Literal["server", "learner"] = "server"
    deliveries: Path | None = None
