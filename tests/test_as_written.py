"""Models as people write them, held against a plain loop over their own data, whole and cut, on both engines."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import TensorDataset

from stalegrid import seeds
from stalegrid.data import Batches
from tests.cases import CPU, train

torch.set_num_threads(1)

SIZE, UPDATES = 4, 6


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


VECTORS = TensorDataset(drawn(32, 6), torch.arange(32) % 3)
IMAGES = TensorDataset(drawn(32, 3, 8, 8), torch.arange(32) % 3)
TOKENS = torch.randint(1, 20, (32, 9), generator=torch.Generator().manual_seed(0))
NEXT = TensorDataset(TOKENS[:, :-1], TOKENS[:, 1:])


class Siamese(nn.Module):
    """One encoder for two inputs, and a loss of both outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(a), self.encoder(b)


class Couples(TensorDataset):
    def __getitem__(self, i: int) -> Any:
        a, b, y = super().__getitem__(i)
        return (a, b), y


def contrastive(a: Tensor, b: Tensor, alike: Tensor) -> Tensor:
    distance = (a - b).norm(dim=1)
    return (alike * distance.pow(2) + (1 - alike) * F.relu(1 - distance).pow(2)).mean()


class Supervised(nn.Module):
    """A list of outputs from several depths, by any arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.near, self.far = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> list[Tensor]:
        h = torch.relu(self.a(args[0]))
        return [self.near(h), self.far(torch.relu(self.b(h)))]


def of_all(outputs: list[Tensor], targets: Tensor) -> Tensor:
    return sum((F.cross_entropy(output, targets) for output in outputs), torch.zeros(()))


class Attending(nn.Module):
    """Patches by einops, and torch's attention without its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = rearrange(self.patches(x), "b c h w -> b (h w) c")
        mixed, _ = self.attention(h, h, h, need_weights=False)
        return self.head(self.norm(h + mixed).mean(1))


class Language(nn.Module):
    """A recurrent language model, whose state is an argument that nobody gives and an output that the loss leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(20, 8), nn.LSTM(8, 8, 2, batch_first=True), nn.Linear(8, 20)

    def forward(self, x: Tensor, hidden: Any = None) -> tuple[Tensor, Any]:
        y, hidden = self.rnn(self.embed(x), hidden)
        return self.head(y), hidden


class Packed(nn.Module):
    """A classifier of sequences of several lengths, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True, bidirectional=True)
        self.a, self.b = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embed(x), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (h, _) = self.rnn(packed)
        return self.b(torch.relu(self.a(torch.cat([h[0], h[1]], 1))))


class Rotating(nn.Module):
    """Attention whose positions are rotations, in a buffer of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        angles = torch.outer(torch.arange(8.0), 1.0 / 100 ** (torch.arange(0, 4, 2) / 4))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], 2, 2))
        return torch.view_as_real(pairs * self.turns).flatten(3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (z.view(-1, 8, 2, 4).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        made = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        return x + self.out(made.transpose(1, 2).reshape(-1, 8, 8))


class Adapted(nn.Module):
    """A frozen layer with a product of two small ones beside it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.a = nn.Parameter(torch.randn(2, inputs) * 0.1)
        self.b = nn.Parameter(torch.randn(outputs, 2) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + (x @ self.a.t()) @ self.b.t()


class Features(nn.Module):
    """A part that is used without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.b = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 8)
        self.c, self.d = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.features(x)
        return self.d(torch.relu(self.c(torch.relu(self.b(h)))))


def clamped() -> nn.Module:
    model = layers()
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return model


def layers(of: Callable[..., nn.Module] = nn.Linear) -> nn.Module:
    return nn.Sequential(of(6, 8), nn.ReLU(), of(8, 8), nn.ReLU(), of(8, 3))


def wrapped(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: layers(lambda inputs, outputs: wrap(nn.Linear(inputs, outputs)))


def words(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.transpose(1, 2), targets)


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any, list[str]]] = {
    "siamese": (Siamese, Couples(drawn(32, 6), drawn(32, 6).flip(0), torch.arange(32.0) % 2), contrastive, []),
    "list of outputs": (Supervised, VECTORS, of_all, ["b", "far"]),
    "attention": (Attending, IMAGES, F.cross_entropy, ["norm", "head"]),
    "language": (Language, NEXT, lambda y, hidden, targets: words(y, targets), ["rnn", "head"]),
    "packed": (Packed, Couples(TOKENS, 3 + torch.arange(32) % 6, torch.arange(32) % 3), F.cross_entropy, ["a", "b"]),
    "rotations": (
        lambda: nn.Sequential(nn.Embedding(20, 8), Rotating(), Rotating(), nn.Linear(8, 20)),
        NEXT,
        words,
        ["2", "3"],
    ),
    "adapters": (lambda: layers(Adapted), VECTORS, F.cross_entropy, ["2", "4"]),
    "without gradients": (Features, VECTORS, F.cross_entropy, ["c", "d"]),
    "weight norm": (wrapped(weight_norm), VECTORS, F.cross_entropy, ["2", "4"]),
    "spectral norm": (wrapped(spectral_norm), VECTORS, F.cross_entropy, ["2", "4"]),
    "compiled": (lambda: torch.compile(layers(), backend="eager"), VECTORS, F.cross_entropy, []),  # type: ignore[return-value]
    "clamped gradients": (clamped, VECTORS, F.cross_entropy, ["2", "4"]),
}


def built(name: str) -> nn.Module:
    with seeds.drawing(CPU, 0, "test model"):
        return CASES[name][0]()


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def plain(name: str) -> dict[str, Tensor]:
    """Train as anybody would, with nothing of the library but the order of the samples."""
    _, data, loss, _ = CASES[name]
    model, batches = built(name).train(), Batches(data, groups=1, batch_size=SIZE)
    optimizer = sgd([p for p in model.parameters() if p.requires_grad])
    for n in range(UPDATES):
        outputs = model(*batches.inputs(0, n))
        found = loss(*(outputs if isinstance(outputs, tuple) else [outputs]), batches.targets(0, n))
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
    return model.state_dict()


def trained(name: str, **options: Any) -> dict[str, Tensor]:
    _, data, loss, _ = CASES[name]
    common: dict[str, Any] = {"optimizer": sgd, "batch_size": SIZE, "updates": UPDATES, "quiet": True}
    return train(built(name), data, loss=loss, **common, **options).model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def where(name: str, stages: int) -> dict[str, Any]:
    cuts = CASES[name][3]
    return {"groups": 1, "stages": stages, **({"cuts": cuts[: stages - 1]} if cuts else {})}


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.spectral_norm")
@pytest.mark.parametrize("name", CASES)
def test_without_staleness_it_is_the_plain_loop_whole_and_in_stages(name: str) -> None:
    expected = plain(name)
    assert not same(expected, built(name).state_dict())
    assert same(expected, trained(name, method="sgd", engine="simulator"))
    for stages in (2, 3):
        assert same(expected, trained(name, method="1f1b", micro_batches=1, engine="simulator", **where(name, stages)))


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.spectral_norm")
@pytest.mark.parametrize("name", ["siamese", "packed", "rotations", "spectral norm", "clamped gradients"])
def test_late_gradients_are_the_same_on_both_engines(name: str) -> None:
    late = {"method": "pipedream", **where(name, 2)}
    if "cuts" not in late:  # balanced by measured times, which are never twice the same
        late["cuts"] = ["encoder.2"]
    one, other = (trained(name, engine=engine, **late) for engine in ("simulator", "processes"))
    assert same(one, other)
    assert not same(one, plain(name))
