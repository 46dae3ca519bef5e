"""Published methods with another pipeline, correction or period: values of one's own, to compare with the originals.

stalegrid compare --methods exact-diffusion,benchmarks.variants:LATE_EXACT_DIFFUSION --groups 4 --stages 2 --out RUNS
"""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

import stalegrid
from stalegrid.consensus import UsualTurns
from stalegrid.methods import find_grid
from stalegrid.models.resnet import resnet

ROUND_TRIP = find_grid("pham-ahn")


def _late(name: str) -> stalegrid.Method:
    """Return a method whose stages run ahead as those of Pham and Ahn do."""
    return replace(find_grid(name), name=f"{name}-late", formula=ROUND_TRIP.formula, schedule=ROUND_TRIP.schedule)


# Groups with unlike data, in front of a pipeline that is late: published for gradients of now.
LATE_EXACT_DIFFUSION = _late("exact-diffusion")
LATE_GRADIENT_TRACKING = _late("gradient-tracking")
LATE_SGP = _late("sgp")

# Gradients one update late on every stage, and the update fed back as it is published for that.
FED_BACK = replace(find_grid("pipedream-2bw"), name="pipedream-2bw-fed-back", corrections=("error-feedback=1.0",))

# All groups together, every 50 updates, and nothing in between.
RARELY = UsualTurns(period=50, topology="complete")
LOCAL_SGD = replace(find_grid("diloco"), name="local-sgd-50", mixing="adapt-then-combine", turns=RARELY)


def _hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and name.startswith("blocks")


def muon(named_parameters: list[tuple[str, nn.Parameter]], lr: float) -> torch.optim.Optimizer:
    """Muon for the matrices of the blocks, AdamW with a tenth of the rate for embeddings, norms and biases."""
    own = partial(torch.optim.Muon, lr=lr, weight_decay=0.0)
    rest = partial(torch.optim.AdamW, lr=lr / 10, weight_decay=0.0)
    return stalegrid.by_name({_hidden: own}, rest=rest)(named_parameters)


def resnet20() -> nn.Module:
    """Return ResNet-20 with normalisation over groups of 8 channels, which knows nothing of the rest of a batch."""
    model = resnet(20)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(child.num_features // 8, child.num_features))
    return model
