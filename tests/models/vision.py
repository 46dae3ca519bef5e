"""Networks for images as their papers draw them, small, each with the samples that it is trained on.

Does not know: how a model is captured or trained.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stalegrid.seeds import drawing

CLASSES = 5
DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.randn(8, 3, 32, 32, generator=DRAW)
KINDS = torch.randint(0, CLASSES, (8,), generator=DRAW)
PIXELS = torch.randint(0, CLASSES, (8, 32, 32), generator=DRAW)


def conv(before: int, after: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution, batch-norm and ReLU."""
    layer = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def head(width: int) -> nn.Sequential:
    """Return the mean over all places and a layer on it."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


class AlexNet(nn.Module):
    """Convolutions, then layers on all places (Krizhevsky et al. 2012)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        )
        self.classifier = nn.Sequential(nn.Linear(108, 16), nn.ReLU(inplace=True), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class VGG(nn.Sequential):
    """Blocks of convolutions, halved in between (Simonyan and Zisserman 2014)."""

    def __init__(self) -> None:
        sizes = [(3, 8), (8, 12), (12, 16)]
        super().__init__(*(nn.Sequential(conv(a, b), conv(b, b), nn.MaxPool2d(2)) for a, b in sizes), head(16))


class Residual(nn.Module):
    """A bottleneck with a way around it; grouped in ResNeXt and RegNet."""

    def __init__(self, before: int, after: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.down, self.middle = conv(before, after // 2, 1), conv(after // 2, after // 2, 3, stride, groups)
        self.up, self.norm = nn.Conv2d(after // 2, after, 1, bias=False), nn.BatchNorm2d(after)
        same = before == after and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.up(self.middle(self.down(x))))
        y += self.around(x)
        return F.relu(y, inplace=True)


def resnet() -> nn.Module:
    """Return residual blocks (He et al. 2015)."""
    return nn.Sequential(conv(3, 8), Residual(8, 8), Residual(8, 16, 2), Residual(16, 16), head(16))


def resnext() -> nn.Module:
    """Return residual blocks of grouped convolutions (Xie et al. 2016)."""
    return nn.Sequential(conv(3, 8), Residual(8, 16, 1, 4), Residual(16, 16, 2, 4), Residual(16, 16, 1, 4), head(16))


class Squeeze(nn.Module):
    """Weights of channels from their means (Hu et al. 2017)."""

    def __init__(self, width: int, gate: Callable[[Tensor], Tensor] = torch.sigmoid) -> None:
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.gate(self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return x * weights


def regnet() -> nn.Module:
    """Return grouped residual blocks with weights of channels (Radosavovic et al. 2020)."""
    blocks = [nn.Sequential(Residual(a, b, 2, 2), Squeeze(b)) for a, b in [(8, 8), (8, 16), (16, 24)]]
    return nn.Sequential(conv(3, 8), *blocks, head(24))


class DenseNet(nn.Module):
    """Each layer reads all before it (Huang et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool, self.head = conv(3, 8), nn.AvgPool2d(2), head(32)
        self.layers = nn.ModuleList(conv(8 + 4 * i, 4) for i in range(6))

    def forward(self, x: Tensor) -> Tensor:
        found = [self.pool(self.stem(x))]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return self.head(torch.cat(found, 1))


class Inverted(nn.Module):
    """Wide in the middle, where every channel is by itself; EfficientNet weighs channels there."""

    def __init__(self, before: int, after: int, stride: int, squeeze: bool = False) -> None:
        super().__init__()
        wide = before * 3
        middle = [Squeeze(wide)] if squeeze else []
        narrow = [nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.body = nn.Sequential(conv(before, wide, 1), conv(wide, wide, 3, stride, wide), *middle, *narrow)
        self.same = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobilenet() -> nn.Module:
    """Return inverted residuals (Sandler et al. 2018)."""
    return nn.Sequential(conv(3, 8, stride=2), Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1), head(12))


def efficientnet() -> nn.Module:
    """Return inverted residuals with weights of channels (Tan and Le 2019)."""
    blocks = [Inverted(8, 8, 1, True), Inverted(8, 12, 2, True), Inverted(12, 12, 1, True)]
    return nn.Sequential(conv(3, 8, stride=2), *blocks, head(12))


class Fire(nn.Module):
    """Few channels, then two sizes of convolutions side by side."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = conv(before, 4, 1), conv(4, after // 2, 1), conv(4, after // 2)

    def forward(self, x: Tensor) -> Tensor:
        few = self.squeeze(x)
        return torch.cat([self.one(few), self.three(few)], 1)


def squeezenet() -> nn.Module:
    """Return fire modules, and a convolution as head (Iandola et al. 2016)."""
    last = [nn.Conv2d(16, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(conv(3, 8, stride=2), Fire(8, 8), nn.MaxPool2d(2), Fire(8, 16), Fire(16, 16), *last)


class Shuffle(nn.Module):
    """Half of the channels is computed on, then all are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(conv(half, half, 1), conv(half, half, 3, groups=half), conv(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        y = torch.cat((left, self.branch(right)), 1)
        n, c, h, w = y.size()
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def shufflenet() -> nn.Module:
    """Return units that shuffle their channels (Ma et al. 2018)."""
    return nn.Sequential(conv(3, 8, stride=2), Shuffle(8), Shuffle(8), conv(8, 16, stride=2), Shuffle(16), head(16))


class Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.one, self.three = conv(before, 4, 1), nn.Sequential(conv(before, 4, 1), conv(4, 4))
        self.five = nn.Sequential(conv(before, 4, 1), conv(4, 4, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(before, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in (self.one, self.three, self.five, self.pool)], 1)


class GoogLeNet(nn.Module):
    """Branches side by side, and a second head in the middle (Szegedy et al. 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = conv(3, 8, stride=2), nn.ModuleList([Inception(8), Inception(16), Inception(16)])
        self.aside, self.head = head(16), head(16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks[1](self.blocks[0](self.stem(x)))
        aside = self.aside(x)
        return self.head(self.blocks[2](x)), aside


class UNet(nn.Module):
    """Down and up again, with what was on the way down beside it (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv(3, 4), conv(4, 8), conv(8, 16)
        self.up2, self.join2 = nn.ConvTranspose2d(16, 8, 2, 2), conv(16, 8)
        self.up1, self.join1 = nn.ConvTranspose2d(8, 4, 2, 2), conv(8, 4)
        self.head = nn.Conv2d(4, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        b = self.join2(torch.cat([self.up2(c), b], dim=1))
        a = self.join1(torch.cat([self.up1(b), a], dim=1))
        return self.head(a)


class FPN(nn.Module):
    """A head on every size, each told of the smaller ones (Lin et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.downs = nn.ModuleList(conv(a, b, stride=2) for a, b in [(8, 8), (8, 12), (12, 16)])
        self.sides = nn.ModuleList(nn.Conv2d(width, 8, 1) for width in (8, 12, 16))
        self.head = nn.Conv2d(8, CLASSES, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x, found = self.stem(x), []
        for down, side in zip(self.downs, self.sides, strict=True):
            x = down(x)
            found.append(side(x))
        top = found.pop()
        while found:
            top = found.pop() + F.interpolate(top, scale_factor=2, mode="nearest")
        return F.interpolate(self.head(top), size=(32, 32), mode="bilinear", align_corners=False)


class Attention(nn.Module):
    """Two heads over tokens, (samples, tokens, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(n, tokens, width))


def mlp(width: int, outer: int | None = None) -> nn.Sequential:
    """Return two layers, over the last dimension."""
    return nn.Sequential(nn.Linear(width, outer or 2 * width), nn.GELU(), nn.Linear(outer or 2 * width, width))


class Block(nn.Module):
    """Attention, and two layers with a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.norm, self.mlp = Attention(width), nn.LayerNorm(width), mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return x + self.mlp(self.norm(x))


class ViT(nn.Module):
    """Patches as tokens, and one that is read at the end (Dosovitskiy et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token, self.places = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16) / 8)
        self.blocks = nn.ModuleList(Block(16) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Mixing(nn.Module):
    """Layers over the tokens, and layers over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.tokens, self.channels = nn.LayerNorm(16), nn.LayerNorm(16), mlp(16, 8), mlp(16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).mT).mT
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """No attention and no convolution but for the patches (Tolstikhin et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, CLASSES)
        self.blocks = nn.Sequential(Mixing(), Mixing(), Mixing())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).mT).mean(1))


class Next(nn.Module):
    """A wide convolution of each channel, two layers, and a scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.norm, self.mlp = (
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            nn.LayerNorm(width),
            mlp(width),
        )
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x).permute(0, 2, 3, 1)
        return x + (self.scale * self.mlp(self.norm(y))).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Return convolutions laid out as a transformer (Liu et al. 2022)."""
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), Next(8), Next(8), nn.Conv2d(8, 16, 2, 2), Next(16), head(16))


class Windows(nn.Module):
    """Attention in windows of 4 x 4 places, which are shifted by half in every second block."""

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.block, self.shift = Block(width), shift

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        windows = x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        x = self.block(windows).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class Merge(nn.Module):
    """Four places become one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, i::2, j::2] for j in range(2) for i in range(2)]
        return self.reduce(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Attention in shifted windows (Liu et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(16, CLASSES)
        self.stages = nn.Sequential(Windows(8, 0), Windows(8, 2), Merge(8), Windows(16, 0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "AlexNet": AlexNet,
    "VGG": VGG,
    "ResNet": resnet,
    "ResNeXt": resnext,
    "RegNet": regnet,
    "DenseNet": DenseNet,
    "MobileNetV2": mobilenet,
    "EfficientNet": efficientnet,
    "SqueezeNet": squeezenet,
    "ShuffleNetV2": shufflenet,
    "GoogLeNet": GoogLeNet,
    "U-Net": UNet,
    "FPN": FPN,
    "ViT": ViT,
    "MLP-Mixer": Mixer,
    "ConvNeXt": convnext,
    "Swin": Swin,
}


def made(name: str) -> nn.Module:
    """Return a model with drawn weights, the same every time."""
    with drawing(torch.device("cpu"), 0, "vision"):
        return MODELS[name]().train()


def samples(name: str) -> tuple[Tensor, Tensor]:
    """Return images, (8, 3, 32, 32), and the class of each, or of each pixel."""
    return IMAGES, PIXELS if name in ("U-Net", "FPN") else KINDS
