import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from stalegrid.agents.coded import Coded
from stalegrid.codecs import Codec, Coding
from stalegrid.codecs.int8 import Int8
from stalegrid.codecs.topk import TopK
from stalegrid.programs import Action, Edge, Kind, Message, Tag, Unit, layout_of

EDGE = Edge("gradient", Unit(0, 1), Unit(0, 0))
OTHER = Edge("gradient", Unit(0, 2), Unit(0, 1))


class Sends:
    """An agent that sends what it is told to, and keeps what it has got."""

    def __init__(self, *sent: tuple[Tensor, ...]) -> None:
        self._sent = iter(sent)
        self.got: list[tuple[Tensor, ...]] = []

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        self.got += [message.tensors for message in inbox]
        return [Message(tag, 0, next(self._sent)) for tag in action.sends]

    def remember(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {"own": 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["own"] == 1


def coding_of(codec: Codec, *tensors: Tensor, feedback: bool = True, flagged: bool = False) -> Coding:
    spans = tuple(t.numel() if t.is_floating_point() else 0 for t in tensors)
    return Coding(codec, feedback, (layout_of(tensors),), (spans,), flagged=flagged)


def send(agent: Coded, index: int, edge: Edge = EDGE) -> Message:
    (made,) = agent.step(Action(Kind.BACKWARD, index, sends=(Tag(edge, index),)), [])
    return made


def arrived(coding: Coding, message: Message) -> list[list[float]]:
    return [t.tolist() for t in coding.decode(message.tensors)]


def test_what_was_not_sent_is_added_to_the_next_message_of_the_edge() -> None:
    x = torch.tensor([3.0, 2.0, 1.0])
    coding = coding_of(TopK(1 / 3), x)
    agent = Coded(Sends(*[(x,)] * 3), lambda edge: coding, None)
    assert arrived(coding, send(agent, 0)) == [[3.0, 0.0, 0.0]]
    assert arrived(coding, send(agent, 1)) == [[0.0, 4.0, 0.0]]
    assert arrived(coding, send(agent, 2)) == [[6.0, 0.0, 0.0]]


def test_every_edge_has_its_own() -> None:
    x = torch.tensor([3.0, 2.0, 1.0])
    coding = coding_of(TopK(1 / 3), x)
    agent = Coded(Sends(*[(x,)] * 2), lambda edge: coding, None)
    assert arrived(coding, send(agent, 0)) == arrived(coding, send(agent, 0, OTHER)) == [[3.0, 0.0, 0.0]]


def test_without_feedback_nothing_is_added() -> None:
    x = torch.tensor([3.0, 2.0, 1.0])
    coding = coding_of(TopK(1 / 3), x, feedback=False)
    agent = Coded(Sends(*[(x,)] * 2), lambda edge: coding, None)
    assert arrived(coding, send(agent, 0)) == arrived(coding, send(agent, 1)) == [[3.0, 0.0, 0.0]]
    assert agent.state_dict()["unsent"] == {}


def test_a_gradient_that_there_is_none_takes_nothing_along() -> None:
    def made(values: list[float], there: int) -> tuple[Tensor, ...]:
        return torch.tensor(values), torch.tensor([there], dtype=torch.uint8)

    sent = [made([3.0, 2.0], 1), made([0.0, 0.0], 0), made([0.0, 0.0], 1)]
    coding = coding_of(TopK(0.5), *sent[0], flagged=True)
    agent = Coded(Sends(*sent), lambda edge: coding, None)
    found = [arrived(coding, send(agent, i)) for i in range(3)]
    # What was lost of the first comes with the third, where there is a gradient of zero, and not with none.
    assert found == [[[3.0, 0.0], [1]], [[0.0, 0.0], [0]], [[0.0, 2.0], [1]]]


def test_what_is_lost_of_a_number_that_is_not_finite_is_let_go() -> None:
    first, second = torch.tensor([float("nan"), 1.0]), torch.tensor([1.0, 1.0])
    coding = coding_of(Int8(), first)
    agent = Coded(Sends((first,), (second,)), lambda edge: coding, None)
    assert str(arrived(coding, send(agent, 0))[0][0]) == "nan"
    assert arrived(coding, send(agent, 1))[0] == pytest.approx([1.0, 1.0], rel=1e-2)


def test_an_agent_takes_tensors_and_knows_of_no_codec() -> None:
    x = torch.tensor([3.0, 2.0, 1.0])
    coding, inner = coding_of(TopK(1 / 3), x), Sends((x,))
    agent = Coded(inner, lambda edge: coding if edge == EDGE else None, None)
    sent = send(agent, 0)
    action = Action(Kind.FORWARD, 0, needs=(sent.tag, Tag(OTHER, 0)))
    agent.step(action, [sent, Message(Tag(OTHER, 0), 0, (x,))])
    assert [[t.tolist() for t in got] for got in inner.got] == [[[3.0, 0.0, 0.0]], [[3.0, 2.0, 1.0]]]


def test_a_sender_hears_what_arrives_where_it_asks_to() -> None:
    x, heard = torch.tensor([3.0, 2.0, 1.0]), list[Message]()
    codec = Coding(TopK(1 / 3), False, (layout_of((x,)),), ((3,),), echoed=True)
    agent = Coded(Sends((x,)), lambda edge: codec, heard.append)
    send(agent, 0)
    assert [message.tensors[0].tolist() for message in heard] == [[3.0, 0.0, 0.0]]


def test_what_was_not_sent_is_state() -> None:
    x = torch.tensor([3.0, 2.0, 1.0])
    coding = coding_of(TopK(1 / 3), x)
    one = Coded(Sends(*[(x,)] * 2), lambda edge: coding, None)
    other = Coded(Sends((x,)), lambda edge: coding, None)
    send(one, 0)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert arrived(coding, send(other, 1)) == arrived(coding, send(one, 1)) == [[0.0, 4.0, 0.0]]


def test_a_state_of_another_shape_of_run_has_nothing_unsent() -> None:
    agent = Coded(Sends(), lambda edge: None, None)
    agent.load_state_dict({"own": 1})
    assert agent.state_dict() == {"own": 1, "unsent": {}}
