"""Trains PyTorch models on a grid of data-parallel groups x pipeline stages with bounded staleness."""

from stalegrid.config import Settings
from stalegrid.consensus.mixing import Exchange, Mixing, Turns, Vectors
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
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.lateral import Lateral, NoLateral
from stalegrid.programs.messages import Message, flat_layout
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.programs.settings import GridSettings, ServerSettings
from stalegrid.recipes.settings import RunConfig
from stalegrid.stages.corrections.named import Correction, Update
from stalegrid.stages.site import Site
from stalegrid.stages.views.named import Kept, View
from stalegrid.stages.views.recomputed import Recomputed
from stalegrid.stages.views.stashed import Stashed
from stalegrid.timing.settings import DeviceSettings
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
    "flat_layout",
    "gpipe",
    "one_f_one_b",
    "stale",
    "train",
]
