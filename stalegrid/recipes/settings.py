"""What is trained, by names and numbers: the groups of settings of a task, and of a whole run.

Does not know: what any name stands for.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from stalegrid.config import Settings
from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class Made(Group):
    """What has a name, or is made by a factory of the user's own.

    Args:
        name: of it, or the factory's path.
        args: of the factory, by name.
    """

    OWN: ClassVar[str | None] = "name"

    name: str | None = None
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Made):
    """What is trained.

    Args:
        name: mlp, convnet, gpt, resnet20, resnet32, resnet56 or resnet110; or PACKAGE.MODULE:FACTORY of your own, which
            returns a torch.nn.Module.
        args: of your factory by name, such as --model.args.width 64.
        stagewise: build it without memory, and each stage where it is trained, for models that are too large for one
            process; initial values are then drawn for each parameter by its name.
        weights: folder of safetensors, as Hugging Face lays them out, or one file, to begin with; built stagewise.
    """

    NAME: ClassVar[str] = "model"

    name: str = "mlp"
    stagewise: bool = False
    weights: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DataSettings(Made):
    """What it is trained on.

    Args:
        name: digits (ships with scikit-learn), cifar10, mnist or text (the characters of a file); or
            PACKAGE.MODULE:FACTORY of your own, which returns a training and a test set, or None for the latter.
        args: of your factory by name.
        folder: with the official files of cifar10 or mnist, or with one file *.txt.
        context: characters of a sample of text.
        augment: crop and flip the training images; on for cifar10 if left out.
    """

    NAME: ClassVar[str] = "data"

    name: str = "digits"
    folder: Path | None = None
    context: int = 64
    augment: bool | None = None


@dataclass(frozen=True, kw_only=True)
class LossSettings(Made):
    """What is to become small.

    Args:
        name: cross-entropy; own, for what the model computes itself; or PACKAGE.MODULE:FACTORY, such as
            torch.nn:MSELoss, which returns a function of outputs and targets.
        args: of the factory by name.
    """

    NAME: ClassVar[str] = "loss"

    name: str = "cross-entropy"


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Made):
    """How parameters follow their gradients.

    Args:
        name: sgd, adam, adamw or nadam; or PACKAGE.MODULE:FACTORY, such as torch.optim:RMSprop, which is given the
            parameters, the rate if you name one, and its arguments; the method's if left out, else sgd.
        args: of your factory by name.
        lr: learning rate, the largest one of a schedule; 0.05 for sgd and 0.002 for the other three if left out.
        momentum: that of sgd, or the first beta of the other three; the method's if left out, else 0.9.
        nesterov: Nesterov's momentum, for sgd.
        weight_decay: L2 penalty (decoupled for adamw and nadam); 0.0005 if left out.
        decay: what has weight decay: all; or matrices, kernels included, and not biases and scales of norms.
    """

    NAME: ClassVar[str] = "optimizer"

    name: str | None = None
    lr: float | None = None
    momentum: float | None = None
    nesterov: bool = False
    weight_decay: float | None = None
    decay: str = "all"


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings(Made):
    """The learning rate over the run.

    Args:
        name: constant, cosine, one-cycle, or step (a tenth at 1/2 and 3/4 of the run); or PACKAGE.MODULE:FACTORY of
            your own, which is given the optimizer and returns a torch scheduler, stepped once an update.
        args: of your factory by name.
        milestones: epochs after which schedule step takes a tenth, instead.
    """

    NAME: ClassVar[str] = "schedule"

    name: str = "one-cycle"
    milestones: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class MetricSettings(Group):
    """What is measured on the test data.

    Args:
        names: beside loss and accuracy: perplexity; or PACKAGE.MODULE:NAME of a function of outputs and targets, or of
            a class such as torchmetrics:MeanAbsoluteError, which is made without arguments; called by their last names.
    """

    NAME: ClassVar[str] = "metrics"
    OWN: ClassVar[str | None] = "names"

    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """How to train, and what.

    Args:
        model: by name.
        data: by name.
        loss: by name.
        optimizer: by name.
        schedule: by name.
        metrics: by name.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    metrics: MetricSettings = field(default_factory=MetricSettings)
