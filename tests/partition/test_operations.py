import io
import pickle
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from stalegrid.engines.distributed.packing import Packer
from stalegrid.objects import PLACE, Form
from stalegrid.partition.operations import Operations
from stalegrid.seeds import drawing

torch.set_num_threads(1)

SCRIPT = """
from random import gauss
from numpy.random import rand

def noisy(x):
    return x + (float(rand()) + gauss(0, 1))

def gate(x):
    return x * 2 if x.mean() > 0 else x
"""


class Several(nn.Module):
    """Operations of all kinds, with arguments of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) * self.scale
        y = F.max_pool1d(y.unsqueeze(1), kernel_size=1).squeeze(dim=1)
        y = torch.cat([y[:, 1:], y[..., :1]], dim=-1).to(torch.float64)
        return torch.ops.aten.relu.default(torch.ops.aten.neg(y)) + torch.tensor(2.0)


def written(graph: fx.Graph) -> bytes:
    packed = io.BytesIO()
    Packer(packed).dump(Operations.of(graph, {"c": torch.ones(2)}, (torch.Size((3, 4)),), Form(PLACE)))
    return packed.getvalue()


def calling(name: str) -> bytes:
    """Return a graph that calls a function of a script, which is gone when the graph is read."""
    script: dict[str, Any] = {"__name__": "__main__"}
    exec(SCRIPT, script)
    graph = fx.Graph()
    graph.output(graph.call_function(script[name], (graph.placeholder("x"),)))
    return written(graph)


def test_a_graph_that_has_travelled_computes_the_same() -> None:
    model, tracer = Several(), fx.Tracer()
    graph = tracer.trace(model)
    found: Operations = pickle.loads(written(graph))
    assert [n.name for n in found.graph().nodes] == [n.name for n in graph.nodes]
    x = torch.randn(3, 4)
    assert torch.equal(fx.GraphModule(model, found.graph())(x), model(x))
    assert torch.equal(found.constants["c"], torch.ones(2))
    assert found.shapes == (torch.Size((3, 4)),)


def test_a_function_of_the_users_script_travels_by_value() -> None:
    made = fx.GraphModule(nn.Module(), pickle.loads(calling("gate")).graph())
    assert torch.equal(made(torch.ones(2)), 2 * torch.ones(2))
    assert torch.equal(made(-torch.ones(2)), -torch.ones(2))


def test_a_function_of_the_users_script_draws_from_the_generators_of_its_process() -> None:
    made = fx.GraphModule(nn.Module(), pickle.loads(calling("noisy")).graph())
    with drawing(torch.device("cpu"), 0, "here"):
        expected = float(np.random.rand()) + random.gauss(0, 1)
    with drawing(torch.device("cpu"), 0, "here"):
        assert made(torch.zeros(1, dtype=torch.float64)) == expected
