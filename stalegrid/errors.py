"""Every error this library raises on purpose.

::

    StalegridError
    |-- ConfigError          what the user asked for cannot be run; raised before any process starts
    |   `-- DataError        a data file is missing, truncated or holds what it should not
    |-- ProtocolError        a message is not the one its channel promised
    |-- TrainingError        the numbers went wrong: coordinates say where
    |   |-- NonFiniteLoss
    |   |-- SampleError      a sample could not be read or used
    |   `-- StalenessExceeded
    |-- Interrupted          a run was asked to leave, and can go on from where it did
    |-- OutputError          what was found out cannot be written
    `-- EngineError          a process died, stalled or lost its peer
        |-- DeadlineExceeded
        |-- PeerLost
        |-- WorkerDied
        `-- GroupLost        without which a run can go on
"""

from collections.abc import Sequence
from typing import NamedTuple


class StalegridError(Exception):
    """Base of all errors of this library."""


class ConfigError(StalegridError, ValueError):
    """What was asked for cannot be run; raised before any process starts."""


class DataError(ConfigError):
    """A data file is missing, truncated or holds what it should not."""


class ProtocolError(StalegridError):
    """A message is not the one that its channel promised."""


class TrainingError(StalegridError):
    """The numbers went wrong; the message says at which unit, batch and version."""


class NonFiniteLoss(TrainingError):
    """A loss is infinite or not a number."""


class SampleError(TrainingError):
    """A sample could not be read or used while training; the message names it."""


class StalenessExceeded(TrainingError):
    """An update used a gradient staler than its declared bound."""


class Interrupted(StalegridError):
    """A run was asked to leave and has saved its state; the message says how it goes on."""


class OutputError(StalegridError):
    """A file or standard output cannot be written; what was written before stays."""


class Wait(NamedTuple):
    """Somebody waits for something of somebody, by their names."""

    who: str
    what: str
    source: str


class EngineError(StalegridError):
    """A process died, stalled or lost its peer.

    Args:
        message: for the user.
        waits: who then waited for whom, from which whoever sees several such errors finds the silent one.
    """

    def __init__(self, message: str = "", waits: Sequence[Wait] = ()) -> None:
        super().__init__(message)
        self.waits = tuple(waits)


class DeadlineExceeded(EngineError):
    """A message did not come within the deadline."""


class PeerLost(EngineError):
    """The other end of a channel closed it."""


class WorkerDied(EngineError):
    """A worker process ended without saying why."""


class GroupLost(EngineError):
    """Processes ended or stalled that had units of some groups and of no others.

    Args:
        message: for the user.
        groups: which.
    """

    def __init__(self, message: str = "", groups: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.groups = tuple(groups)
