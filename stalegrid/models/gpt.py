"""A small decoder of text after Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).

Pre-normalised blocks of causal attention and a feed-forward layer of four times the width; positions are learned, and
the head is the embedding of the tokens, transposed.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEVIATION = 0.02
"""Of all initial weights; those that end in the sum of L blocks have 1 / sqrt(2 L) of it, as in the paper."""


class Block(nn.Module):
    """Attention to what came before, and a feed-forward layer, each added to the stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.project1 = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.project2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to (B, T, width)."""
        x = x + self.dropout(self.project1(self.attend(self.norm1(x))))
        added: Tensor = self.dropout(self.project2(F.gelu(self.expand(self.norm2(x)))))
        return x + added

    def attend(self, x: Tensor) -> Tensor:
        """Return the mean of the values before each position, weighted by how its query fits their keys."""
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in self.attention(x).chunk(3, dim=2))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c)


class GPT(nn.Module):
    """Scores for the next token at every position.

    Args:
        classes: tokens there are.
        context: T, tokens of a sample at most.
        layers: blocks.
        heads: of attention; they divide the width.
        width: of the stream.
        dropout: share of what blocks add, and of the embedding, that is dropped.
    """

    def __init__(
        self, classes: int, context: int, layers: int = 4, heads: int = 4, width: int = 128, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the heads do not divide the width (heads: {heads}, width: {width})")
        self.tokens = nn.Embedding(classes, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes, bias=False)
        self.head.weight = self.tokens.weight
        for name, p in self.named_parameters():
            if p.ndim > 1:
                last = ".project" in name
                nn.init.normal_(p, std=DEVIATION / math.sqrt(2 * layers) if last else DEVIATION)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, int64 (B, T), to scores (B, classes, T), as ``nn.CrossEntropyLoss`` takes them."""
        h = self.dropout(self.tokens(x) + self.positions[: x.shape[1]])
        scores: Tensor = self.head(self.norm(self.blocks(h)))
        return scores.transpose(1, 2)
