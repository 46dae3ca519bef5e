"""Trains PyTorch models on a grid of data-parallel groups x pipeline stages with bounded staleness."""

from stalegrid.config import RunConfig, Settings
from stalegrid.data import ArrayDataset, CropAndFlip
from stalegrid.errors import (
    ConfigError,
    DataError,
    DeadlineExceeded,
    EngineError,
    NonFiniteLoss,
    PeerLost,
    ProtocolError,
    StalegridError,
    StalenessExceeded,
    TrainingError,
    WorkerDied,
)
from stalegrid.task import Task
from stalegrid.train import Result, train
from stalegrid.version import __version__

__all__ = [
    "ArrayDataset",
    "ConfigError",
    "CropAndFlip",
    "DataError",
    "DeadlineExceeded",
    "EngineError",
    "NonFiniteLoss",
    "PeerLost",
    "ProtocolError",
    "Result",
    "RunConfig",
    "Settings",
    "StalegridError",
    "StalenessExceeded",
    "Task",
    "TrainingError",
    "WorkerDied",
    "__version__",
    "train",
]
