"""Small language models with a matrix that several stages use."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from tests.cases import build

WORDS, LENGTH, WIDTH = 11, 5, 6


class Block(nn.Module):
    """Causal attention of one head and two layers, each with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Writer(nn.Module):
    """A decoder whose embedding is its head too.

    Args:
        thrice: use the matrix in the middle too, as it is and transposed.
        explicit: let the later uses read a copy that is made beside the first one, and crosses the cuts like an
            activation.
    """

    def __init__(self, thrice: bool = False, explicit: bool = False) -> None:
        super().__init__()
        self.thrice, self.explicit = thrice, explicit
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH) / 8)
        self.block1, self.block2, self.block3 = Block(), Block(), Block()
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        w = self.embedding.weight.clone() if self.explicit else self.embedding.weight
        h = self.block1(self.embedding(x) + self.places)
        h = self.block2(h)
        if self.thrice:
            h = h + F.linear(F.linear(h, w).softmax(-1), w.t())
        h = self.norm(self.block3(h))[:, -1]
        return F.linear(h, w) if self.explicit else self.head(h)


CUTS = {2: ["block2"], 3: ["block2", "block3"], 4: ["block1", "block2", "block3"]}
"""By K; with three uses, the middle one is in stage 1 of 3 and in stage 2 of 4."""


def writer(thrice: bool = False, explicit: bool = False) -> nn.Module:
    """Return a model, with the same weights every time."""
    return build(lambda: Writer(thrice, explicit))


def sentences(samples: int = 60) -> TensorDataset:
    """Words, each a function of the one before it, and the next."""
    draw = torch.Generator().manual_seed(1)
    words = [torch.randint(0, WORDS, (samples,), generator=draw)]
    for _ in range(LENGTH):
        words.append((words[-1] * 3 + torch.randint(0, 2, (samples,), generator=draw)) % WORDS)
    return TensorDataset(torch.stack(words[:-1], 1), words[-1])
