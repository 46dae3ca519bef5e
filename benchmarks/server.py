"""How many gradients a second a parameter server of 10 million parameters takes on one core, messages included.

Every gradient makes an update (c = 1, SGD with momentum), and is answered with all parameters.  Unpacking the gradient
and packing the answer count; the network does not.
"""

import subprocess
import sys
import time
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, interleave, ratio
from stalegrid.agents.server import Parts, Server
from stalegrid.engines.distributed.wire import FRAME, HEAD, Head, Wire, framed
from stalegrid.engines.machine import computing
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Unit, learner, server
from stalegrid.programs.messages import Message, layout_of
from stalegrid.programs.schedules import Schedule
from stalegrid.programs.softsync import Rules
from stalegrid.stages.corrections.named import makers
from stalegrid.stages.site import Site
from stalegrid.stages.weights import Versions, Weights

GOAL = 20
"""Gradients a second."""

WARM_UP, GRADIENTS = 3, 40


def run(turns: int) -> Row:
    """Measure the rules that scale a gradient, and one that reads the weights of its forward."""
    names = {rule: f"server, 10M parameters, {rule}, gradients/s" for rule in ("inverse-staleness", "dc-asgd")}
    figures = interleave({name: partial(_in_a_worker, rule) for rule, name in names.items()}, turns)
    figures["goal, gradients/s"] = [float(GOAL)] * turns
    goals = {"inverse-staleness": 1.0, "dc-asgd": 0.0}
    return Row(figures, [ratio(figures, names[r], "goal, gradients/s", at_least=least) for r, least in goals.items()])


def _in_a_worker(rule: str) -> float:
    """Measure in a process of its own."""
    made = subprocess.run([sys.executable, "-m", "benchmarks.server", rule], capture_output=True, check=True)
    return float(made.stdout)


def _rate(rule: str) -> float:
    model = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(10)))
    weights = Weights(model)
    optimizer = torch.optim.SGD(weights.trainable(), lr=0.01, momentum=0.9)
    site = Site(server(0), Schedule((1,)), GRADIENTS, weights, Versions(weights), optimizer)
    agent = Server(Parts(site, tuple(make(site) for make in makers([rule])), None, Rules(2, 1), 1))
    turn = _Turn(agent, weights)
    for number in range(WARM_UP + GRADIENTS):
        if number == WARM_UP:
            start = time.perf_counter()
        turn.take(number)
    return GRADIENTS / (time.perf_counter() - start)


class _Turn:
    """What a server's process does with each gradient; two learners take turns, so gradients are one update stale."""

    def __init__(self, agent: Server, weights: Weights) -> None:
        self._agent = agent
        gradient = torch.randn(weights.trained) * 1e-3
        tensors = (gradient, torch.empty(0, dtype=torch.int64), torch.zeros(3, dtype=torch.float64))
        self._incoming, self._outgoing = Wire(layout_of(tensors)), Wire(layout_of((gradient,)))
        self._frame = torch.empty(FRAME, dtype=torch.uint8)
        self._given = [0, 0]
        for number in range(2):
            self._answer(number, 0)
        message = torch.empty(self._incoming.nbytes, dtype=torch.uint8)
        for _ in framed(self._incoming.pack(Message(self._tag(0), 0, tensors), 0), lambda: message):
            self._came = message[HEAD:]

    def take(self, number: int) -> None:
        sender = number % 2
        tag = self._tag(sender)
        # As a receiver copies it out of frames.
        content: tuple[Tensor, ...] = self._incoming.unpack(self._came.clone(), tag, Head(0)).tensors
        self._agent.step(Action(Kind.TAKE, number, (tag,)), [Message(tag, self._given[sender], content)])
        self._agent.step(Action(Kind.UPDATE, number), [])
        self._answer(sender, number + 1)

    def _answer(self, number: int, version: int) -> None:
        self._given[number] = version
        tag = Tag(Edge("weights", server(0), learner(number)), 0)
        (answer,) = self._agent.step(Action(Kind.ANSWER, version, sends=(tag,)), [])
        for _ in framed(self._outgoing.pack(answer, 0), lambda: self._frame):
            pass

    @staticmethod
    def _tag(number: int) -> Tag:
        unit: Unit = learner(number)
        return Tag(Edge("push", unit, server(0)), 0)


if __name__ == "__main__":
    with computing(1):
        print(_rate(sys.argv[1]))
