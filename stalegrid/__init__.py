"""Trains PyTorch models on a grid of data-parallel groups x pipeline stages with bounded staleness."""

from stalegrid.config import Settings
from stalegrid.consensus import AdaptThenCombine, CombineWhileAdapt, Exchange, Mixing, MixingSettings, Turns, Vectors
from stalegrid.data import ArrayDataset, CropAndFlip, TrainingSettings
from stalegrid.engines import EngineSettings
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
from stalegrid.methods import Method, MethodSettings, ServerMethod
from stalegrid.observe import OutputSettings
from stalegrid.plans import Task
from stalegrid.programs import (
    Action,
    Edge,
    GridSettings,
    Kind,
    Lateral,
    Message,
    NoLateral,
    Schedule,
    ServerSettings,
    Tag,
    Unit,
    flat_layout,
    gpipe,
    one_f_one_b,
    stale,
)
from stalegrid.recipes import RunConfig
from stalegrid.stages import Correction, Kept, Recomputed, Site, Stashed, Update, View, by_name
from stalegrid.timing import DeviceSettings
from stalegrid.train import Result, train
from stalegrid.version import __version__

__all__ = [
    "Action",
    "AdaptThenCombine",
    "ArrayDataset",
    "CombineWhileAdapt",
    "ConfigError",
    "Correction",
    "CropAndFlip",
    "DataError",
    "DeadlineExceeded",
    "DeviceSettings",
    "Edge",
    "EngineError",
    "EngineSettings",
    "Exchange",
    "GridSettings",
    "Kept",
    "Kind",
    "Lateral",
    "Message",
    "Method",
    "MethodSettings",
    "Mixing",
    "MixingSettings",
    "NoLateral",
    "NonFiniteLoss",
    "OutputError",
    "OutputSettings",
    "PeerLost",
    "ProtocolError",
    "Recomputed",
    "Result",
    "RunConfig",
    "SampleError",
    "Schedule",
    "ServerMethod",
    "ServerSettings",
    "Settings",
    "Site",
    "StalegridError",
    "StalenessExceeded",
    "Stashed",
    "Tag",
    "Task",
    "TrainingError",
    "TrainingSettings",
    "Turns",
    "Unit",
    "Update",
    "Vectors",
    "View",
    "WorkerDied",
    "__version__",
    "by_name",
    "flat_layout",
    "gpipe",
    "one_f_one_b",
    "stale",
    "train",
]
