"""Where a run happens.

Does not know: what is trained.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Group):
    """When and where the actions of a program happen; changes no number, but for threads and device.

    Args:
        kind: processes (torch.distributed) or simulator (all units in this process).
        processes: number of processes that share the units; one a unit if left out.
        device: cpu, cuda, or auto for cuda where there is one.
        threads: number of threads of each process's arithmetic; another number may change the last bits.
        deadline: seconds that a unit waits for a message before the run ends with an error.
        on_loss: what happens when processes of a group die or stall: the run ends with an error, or continues without
            the group from its last checkpoint.
    """

    NAME: ClassVar[str] = "engine"
    OWN: ClassVar[str | None] = "kind"

    kind: Literal["processes", "simulator"] = "processes"
    processes: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    deadline: float = 120.0
    on_loss: Literal["end", "continue"] = "end"

    @property
    def virtual(self) -> bool:
        """Whether time is computed, not spent."""
        return self.kind == "simulator"
