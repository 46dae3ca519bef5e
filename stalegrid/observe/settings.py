"""What is told of a run, how often, and where it is written.

Does not know: what is trained.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class OutputSettings(Group):
    """What a run tells.

    Args:
        folder: new folder for results.
        log_every: updates between two reports.
        evaluate_every: epochs between two evaluations; 0 for the end only.
        evaluation: who measures and saves the model: whole, the observer, which has all of it; shared, the units for
            the observer, a share of the test data each, which is sooner done where no processor is left for it;
            pipeline, the stages themselves, each of which saves its part; auto, the stages of a model that is made
            stage by stage, where a folder is named, else the observer.
        gap: measure how far weights move between the forward of a batch and its update; costs a copy of the parameters
            where the view keeps none.
        js_distance: measure at every evaluation how far groups are apart in what they predict: the root of the mean
            Jensen-Shannon divergence of their classes' probabilities on the test data; costs a forward of every group's
            model beside that of their mean.
        best: by what the best model is kept, in model-best.safetensors: test_accuracy, test_NAME of a metric, or with a
            minus where the smallest is best, as -test_loss.
        loggers: where every record goes too: tensorboard, wandb (offline unless WANDB_MODE says otherwise), mlflow, or
            PACKAGE.MODULE:CLASS of your own; tensorboard, where it is installed, if left out.
        callbacks: called with what is told; PACKAGE.MODULE:NAME of your own, or of a class or function that makes one.
        limits: measure before the start which learning rates every stage bears, and warn where the schedule goes above;
            takes as long as some hundred backwards (stalegrid limits shows all of it).
        diagnose: updates between two versions of which is measured what the theory speaks of: the gradient of the mean
            model, noise of gradients, staleness error and consensus distance, beside their bounds, and stability
            limits; 0 for none; each takes as long as some hundred backwards or more.
        trace: record what every unit did when; written to trace.json, for ui.perfetto.dev; a run that goes on from
            version N writes trace-from-N.json.
    """

    NAME: ClassVar[str] = "output"

    folder: Path | None = None
    log_every: int = 10
    evaluate_every: float = 1.0
    evaluation: Literal["auto", "whole", "shared", "pipeline"] = "auto"
    gap: bool = True
    js_distance: bool = False
    best: str | None = None
    loggers: list[str] | None = None
    callbacks: list[str] = field(default_factory=list)
    limits: bool = False
    diagnose: int = 0
    trace: bool = False
