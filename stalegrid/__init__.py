"""Trains PyTorch models on a grid of data-parallel groups x pipeline stages with bounded staleness."""

from stalegrid.loading import loading

with loading():
    from stalegrid.checkpoints import CheckpointSettings
    from stalegrid.codecs import CodecSettings
    from stalegrid.config import Settings
    from stalegrid.consensus import (
        AdaptThenCombine,
        CombineWhileAdapt,
        Exchange,
        Mixing,
        MixingSettings,
        Turns,
        UsualTurns,
        Vectors,
    )
    from stalegrid.data import ArrayDataset, CropAndFlip, TrainingSettings, pad_to
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
    from stalegrid.observe import (
        Callback,
        EarlyStopping,
        Logger,
        Metric,
        MLflow,
        OutputSettings,
        Perplexity,
        Stop,
        WeightAverage,
        WeightsAndBiases,
    )
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
    from stalegrid.runs import Result
    from stalegrid.sources import whole_model
    from stalegrid.stages import Correction, Kept, Recomputed, Site, Stashed, Update, View, by_name
    from stalegrid.timing import DeviceSettings
    from stalegrid.train import train
    from stalegrid.transfer import export, load_exported, save_exported
    from stalegrid.version import __version__

__all__ = [
    "Action",
    "AdaptThenCombine",
    "ArrayDataset",
    "Callback",
    "CheckpointSettings",
    "CodecSettings",
    "CombineWhileAdapt",
    "ConfigError",
    "Correction",
    "CropAndFlip",
    "DataError",
    "DeadlineExceeded",
    "DeviceSettings",
    "EarlyStopping",
    "Edge",
    "EngineError",
    "EngineSettings",
    "Exchange",
    "GridSettings",
    "Kept",
    "Kind",
    "Lateral",
    "Logger",
    "MLflow",
    "Message",
    "Method",
    "MethodSettings",
    "Metric",
    "Mixing",
    "MixingSettings",
    "NoLateral",
    "NonFiniteLoss",
    "OutputError",
    "OutputSettings",
    "PeerLost",
    "Perplexity",
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
    "Stop",
    "Tag",
    "Task",
    "TrainingError",
    "TrainingSettings",
    "Turns",
    "Unit",
    "Update",
    "UsualTurns",
    "Vectors",
    "View",
    "WeightAverage",
    "WeightsAndBiases",
    "WorkerDied",
    "__version__",
    "by_name",
    "export",
    "flat_layout",
    "gpipe",
    "load_exported",
    "one_f_one_b",
    "pad_to",
    "save_exported",
    "stale",
    "train",
    "whole_model",
]
