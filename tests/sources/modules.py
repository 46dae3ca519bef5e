"""Modules whose making does all kinds of things."""

import copy

import torch
from torch import nn


class Own(nn.Module):
    """Fills its parameters in its constructor, in place and anew, and copies a part of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        nn.init.orthogonal_(self.inner.weight)
        self.scale = nn.Parameter(torch.rand(6) * 2 + torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        self.register_buffer("order", torch.randperm(6))
        self.register_buffer("frequencies", 1 / 100 ** (torch.arange(0, 6, 2) / 6), persistent=False)
        self.register_buffer("mask", torch.tril(torch.ones(3, 3, dtype=torch.bool)))
        self.target = copy.deepcopy(self.inner).requires_grad_(False)
        with torch.no_grad():
            self.inner.bias[1:3] = self.inner.weight[:2].sum(1)
        self.half = nn.Linear(6, 2).to(torch.bfloat16)


def various() -> nn.Module:
    """Make a model of layers that come about in many ways."""
    found = nn.ModuleDict(
        {
            "lstm": nn.LSTM(3, 4, num_layers=2),
            "attention": nn.MultiheadAttention(8, 2),
            "norm": nn.BatchNorm2d(4),
            "embedding": nn.Embedding(5, 3, padding_idx=0),
            "weighted": nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
            "spectral": nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)),
            "encoder": nn.TransformerEncoderLayer(8, 2, batch_first=True),
            "convolution": nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last),
            "own": Own(),
            "tied": nn.Linear(3, 5, bias=False),
        }
    )
    found["tied"].weight = found["embedding"].weight
    for name, parameter in found["encoder"].named_parameters():
        if parameter.ndim > 1 and "linear" in name:
            nn.init.trunc_normal_(parameter, std=0.02)
    return found
