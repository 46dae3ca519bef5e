"""What is trained, by this library and by its peers alike.

Does not know: how.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.sleeping import sleepers
from stalegrid import ArrayDataset
from stalegrid.models.named import resnet

STAGES, FORWARD, BACKWARD = 8, 0.020, 0.040
"""Emulated devices, and the seconds that each takes for a batch."""

SLOWER, LONGEST = 5, 32
"""How much slower devices are of which there are many, and how many there are at most."""

BATCHES = 4
"""Different batches that everybody trains on, in turn."""

WIDTH = 832
"""Of the layers of a model that is slow to average."""

FAR, FAR_SIZE = 4, 448
"""Devices that are far apart; rows and columns of each of the eight matrices of parameters, 1.6 million in all."""

FAR_WIDTHS = {"far-sleepers": 2048, "far-sleepers-wide": 8192}
"""Numbers of a sample between two layers: devices are the limit, and links of 100 Mbit/s are."""

PLACES, FEATURES, HEADS = 64, 256, 4
"""Of the attention of a transformer."""

SLEPT = 32
"""Samples of such a batch."""


@dataclass(frozen=True)
class Workload:
    """A model and its data.

    Args:
        model: makes the model, a chain of layers.
        samples: makes so many samples.
        batch: samples of an update.
    """

    model: Callable[[], nn.Sequential]
    samples: Callable[[int], ArrayDataset]
    batch: int


def images(samples: int) -> ArrayDataset:
    """Return random images of CIFAR's shape."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(samples, 3, 32, 32, generator=draw)
    return ArrayDataset(pixels, torch.randint(0, 10, (samples,), generator=draw), 10)


def vectors(width: int, samples: int) -> ArrayDataset:
    """Return random vectors."""
    draw = torch.Generator().manual_seed(0)
    return ArrayDataset(
        torch.randn(samples, width, generator=draw), torch.randint(0, 10, (samples,), generator=draw), 10
    )


def wide() -> nn.Sequential:
    """Return eight layers with 5.5 million parameters: much to average, little to hand from layer to layer."""
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Cast(nn.Module):
    """A layer that changes the type of what it is given, forwards and, of gradients, backwards.

    Args:
        dtype: of what it returns.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Cast."""
        return x.to(self.dtype)


def wide_halved() -> nn.Sequential:
    """Return the same layers in four parts, with bfloat16 between them: cut before the second of two casts."""
    layers = list(wide())
    parts = [nn.Sequential(*layers[i : i + 4]) for i in range(0, len(layers), 4)]
    cast = [(Cast(torch.float32), part, Cast(torch.bfloat16)) for part in parts]
    return nn.Sequential(*[layer for three in cast for layer in three][1:-1])


class Block(nn.Module):
    """Causal attention and two layers, each after a norm and with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(FEATURES), nn.LayerNorm(FEATURES)
        self.ahead, self.behind = nn.Linear(FEATURES, 3 * FEATURES), nn.Linear(FEATURES, FEATURES)
        self.up, self.down = nn.Linear(FEATURES, 4 * FEATURES), nn.Linear(4 * FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        """Return what comes of samples x places x features, of the same shape."""
        q, k, v = self.ahead(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.behind(found.transpose(1, 2).flatten(2))
        made: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return made


def transformer() -> nn.Sequential:
    """Return four such blocks, 3.2 million parameters, that classify by all places together."""
    blocks = [Block() for _ in range(4)]
    return nn.Sequential(nn.Unflatten(1, (PLACES, FEATURES)), *blocks, nn.Flatten(), nn.Linear(PLACES * FEATURES, 10))


class Half(nn.Module):
    """A layer that computes in bfloat16 where that is good enough.

    Args:
        layer: any module.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Compute under autocast."""
        with torch.autocast(x.device.type, torch.bfloat16):
            made: Tensor = self.layer(x)
            return made


class ChannelsLast(nn.Module):
    """Images in the memory order that tensor cores want."""

    def forward(self, x: Tensor) -> Tensor:
        """Reorder."""
        return x.contiguous(memory_format=torch.channels_last)


def _half(depth: int) -> nn.Sequential:
    model = nn.Sequential(ChannelsLast(), *(Half(layer) for layer in resnet(depth)))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _sleepers(devices: int, layers: int, slower: int = 1) -> Workload:
    each = slower * devices / SLEPT
    model = partial(sleepers, layers, each * FORWARD, each * BACKWARD)
    return Workload(model, partial(vectors, 16), SLEPT)


def _far(width: int) -> Workload:
    each = FAR / SLEPT
    return Workload(
        partial(sleepers, 2 * FAR, each * FORWARD, each * BACKWARD, FAR_SIZE), partial(vectors, width), SLEPT
    )


WORKLOADS = {
    "resnet20": Workload(partial(resnet, 20), images, 128),
    "resnet56": Workload(partial(resnet, 56), images, 128),
    "half-resnet56": Workload(partial(_half, 56), images, 128),
    "wide": Workload(wide, partial(vectors, WIDTH), 128),
    "wide-halved": Workload(wide_halved, partial(vectors, WIDTH), 128),
    "transformer": Workload(transformer, partial(vectors, PLACES * FEATURES), 16),
    "sleeper": _sleepers(1, 1),
    "two-sleepers": _sleepers(2, 2),
    "sleepers": _sleepers(STAGES, STAGES),
    "half-sleepers": _sleepers(STAGES, 2 * STAGES),  # for schedules that give a device two parts of the model
    **{name: _far(width) for name, width in FAR_WIDTHS.items()},
    **{f"slow-sleepers-{n}": _sleepers(n, n, SLOWER) for n in (2, 4, 8, 16, LONGEST)},
}


def optimizer(lr: float = 0.01) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """Return what everybody trains with."""
    return partial(torch.optim.SGD, fused=True, lr=lr, momentum=0.9, weight_decay=5e-4)
