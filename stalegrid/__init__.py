"""Trains PyTorch models on a grid of data-parallel groups x pipeline stages with bounded staleness."""

from stalegrid.config import Settings
from stalegrid.consensus.mixing import Mixing
from stalegrid.consensus.mixings import AdaptThenCombine, CombineWhileAdapt
from stalegrid.consensus.settings import MixingSettings
from stalegrid.data import ArrayDataset, CropAndFlip
from stalegrid.data.settings import TrainingSettings
from stalegrid.engines.settings import EngineSettings
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
from stalegrid.methods.method import Method, ServerMethod
from stalegrid.methods.settings import MethodSettings
from stalegrid.observe.settings import OutputSettings
from stalegrid.plans.task import Task
from stalegrid.programs.settings import GridSettings, ServerSettings
from stalegrid.recipes.settings import RunConfig
from stalegrid.stages.corrections import Correction, Update
from stalegrid.stages.views import View
from stalegrid.timing.settings import DeviceSettings
from stalegrid.train import Result, train
from stalegrid.version import __version__

__all__ = [
    "AdaptThenCombine",
    "ArrayDataset",
    "CombineWhileAdapt",
    "ConfigError",
    "Correction",
    "CropAndFlip",
    "DataError",
    "DeadlineExceeded",
    "DeviceSettings",
    "EngineError",
    "EngineSettings",
    "GridSettings",
    "Method",
    "MethodSettings",
    "Mixing",
    "MixingSettings",
    "NonFiniteLoss",
    "OutputError",
    "OutputSettings",
    "PeerLost",
    "ProtocolError",
    "Result",
    "RunConfig",
    "SampleError",
    "ServerMethod",
    "ServerSettings",
    "Settings",
    "StalegridError",
    "StalenessExceeded",
    "Task",
    "TrainingError",
    "TrainingSettings",
    "Update",
    "View",
    "WorkerDied",
    "__version__",
    "train",
]
