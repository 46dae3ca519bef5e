"""Trains PyTorch models on a grid of data-parallel groups x pipeline stages with bounded staleness."""

from stalegrid.config import RunConfig, Settings
from stalegrid.data import ArrayDataset, CropAndFlip
from stalegrid.errors import (
    ConfigError,
    DataError,
    DeadlineExceeded,
    EngineError,
    NonFiniteLoss,
    OutputError,
    PeerLost,
    ProtocolError,
    SampleError,
    StalegridError,
    StalenessExceeded,
    TrainingError,
    WorkerDied,
)
from stalegrid.plans.task import Task
from stalegrid.stages.corrections import Correction, Update
from stalegrid.train import Result, train
from stalegrid.version import __version__

__all__ = [
    "ArrayDataset",
    "ConfigError",
    "Correction",
    "CropAndFlip",
    "DataError",
    "DeadlineExceeded",
    "EngineError",
    "NonFiniteLoss",
    "OutputError",
    "PeerLost",
    "ProtocolError",
    "Result",
    "RunConfig",
    "SampleError",
    "Settings",
    "StalegridError",
    "StalenessExceeded",
    "Task",
    "TrainingError",
    "Update",
    "WorkerDied",
    "__version__",
    "train",
]
