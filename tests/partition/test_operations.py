import pickle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from stalegrid.partition.operations import Operations

torch.set_num_threads(1)

SCRIPT = """
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


def read(graph: fx.Graph) -> Operations:
    return pickle.loads(pickle.dumps(Operations.of(graph, {"c": torch.ones(2)}, (torch.Size((3, 4)),))))


def test_a_graph_that_has_travelled_computes_the_same() -> None:
    model, tracer = Several(), fx.Tracer()
    graph = tracer.trace(model)
    found = read(graph)
    assert [n.name for n in found.graph().nodes] == [n.name for n in graph.nodes]
    x = torch.randn(3, 4)
    assert torch.equal(fx.GraphModule(model, found.graph())(x), model(x))
    assert torch.equal(found.constants["c"], torch.ones(2))
    assert found.shapes == (torch.Size((3, 4)),)


def test_a_function_of_the_users_script_travels_by_value() -> None:
    script: dict[str, Any] = {"__name__": "__main__"}
    exec(SCRIPT, script)
    graph = fx.Graph()
    graph.output(graph.call_function(script["gate"], (graph.placeholder("x"),)))
    written = pickle.dumps(Operations.of(graph, {}, ()))
    del script["gate"]
    made = fx.GraphModule(nn.Module(), pickle.loads(written).graph())
    assert torch.equal(made(torch.ones(2)), 2 * torch.ones(2))
    assert torch.equal(made(-torch.ones(2)), -torch.ones(2))
