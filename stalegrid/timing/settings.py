"""What devices and links are like.

Does not know: what is trained on them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class DeviceSettings(Group):
    """What the devices and links are like, or shall be taken to be like.

    Args:
        costs: YAML table of what the parts of the model cost, on one device or on each of several, as ``stalegrid
            profile`` writes it; gives the simulator a clock, and faster devices more parts.
        emulate: let processes sleep until every action has taken as long as the costs say.
        slow: units whose every action takes so many times as long, such as 1,2=3.0 for unit (1,2), several with ;
            between; 3=3.0 is the device with that number, counted group by group, on any grid.
        jitter: sigma of the log-normal jitter of every action.
        stalls: probability that an action stalls and for how many ms, such as 0.01,200.
        link: latency in ms, or latency and bandwidth in Mbit/s, between stages, such as 1,100; in virtual time only.
        lateral_link: likewise between groups; in virtual time only.
        outages: times, in ms, when units or links are out, such as 0,1@1000-3000 or 0,1>0,2@1000-3000, several with
            ; between; in virtual time only.
    """

    NAME: ClassVar[str] = "devices"

    costs: Path | None = None
    emulate: bool = False
    slow: str | None = None
    jitter: float = 0.0
    stalls: list[float] | None = None
    link: list[float] | None = None
    lateral_link: list[float] | None = None
    outages: str | None = None
