"""What servers report, and what becomes of it."""

import json
import math
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.observe.settings import OutputSettings
from stalegrid.observe.takes import Takes
from stalegrid.programs.messages import layout_of
from stalegrid.programs.settings import ServerSettings

NUMBERS = st.floats(allow_nan=False)
COUNTS = st.integers(0, 40)


def test_what_a_server_took_since_its_last_report_is_saved() -> None:
    takes, numbers = Takes(), [torch.tensor([4.0, 0.1 * k, 2.0, 1.0], dtype=torch.float64) for k in range(6)]
    for number in numbers[:3]:
        takes.used(1, 2, number)
    takes.lose(3)
    again = Takes()
    again.load_state_dict(deepcopy(takes.state_dict()))
    assert again == takes
    for one in (takes, again):
        for number in numbers[3:]:
            one.used(0, 1, number, mean=True)
    assert torch.equal(again.vector(9), takes.vector(9))


@settings(deadline=None)
@given(
    st.lists(NUMBERS, min_size=6, max_size=6),
    st.lists(st.tuples(COUNTS, COUNTS), max_size=9),
    st.lists(COUNTS, max_size=4),
    st.integers(0, 5),
)
def test_takes_travel_as_a_vector(
    numbers: list[float], taken: list[tuple[int, int]], lost: list[int], free: int
) -> None:
    takes = Takes(*numbers, taken, lost)
    most = len(taken) + len(lost) + free
    vector = takes.vector(most)
    assert layout_of([vector]) == Takes.layout(most)
    assert Takes.read(vector) == takes


def numbers(samples: float, loss: float, correct: float, count: float = 1.0) -> torch.Tensor:
    return torch.tensor([samples, loss, correct, count], dtype=torch.float64)


def test_sums_are_divided_by_what_they_count() -> None:
    takes = Takes()
    takes.used(0, 0, numbers(4, 10.0, 2, 20), mean=False)
    takes.used(1, 0, numbers(3, 2.0, 3, 4), mean=False)
    assert takes.record()["loss"] == takes.record()["group_loss"][0] == 12 / 24


def test_means_are_weighed_by_samples() -> None:
    takes = Takes()
    takes.used(0, 0, numbers(4, 3.0, 2))
    takes.used(1, 0, numbers(1, 8.0, 0))
    found = Takes.read(takes.vector(2))
    assert found == takes
    assert found.record()["loss"] == (4 * 3.0 + 1 * 8.0) / 5


def test_a_record_tells_of_every_learner_that_was_taken_from_or_lost() -> None:
    takes = Takes(lr=0.25, held=7)
    takes.used(10, 2, numbers(4, 0.5, 1))
    takes.used(2, 0, numbers(4, 1.5, 3))
    takes.lose(3)
    takes.used(10, 1, numbers(2, 1.0, 2))
    takes.lose(2)
    record = takes.record()
    assert record == {
        "loss": 1.0,
        "train_accuracy": 0.6,
        "lr": 0.25,
        "samples": 10,
        "group_loss": [1.0],
        "held": 7,
        "staleness": {
            "(2,0)": {"mean": 0.0, "max": 0, "batches": 1, "histogram": [1], "gap": None},
            "(10,0)": {"mean": 1.5, "max": 2, "batches": 2, "histogram": [0, 1, 1], "gap": None},
        },
        "lost": [3, 2],
    }
    assert list(record["staleness"]) == ["(2,0)", "(10,0)"]


def test_nobody_lost_is_an_empty_list() -> None:
    takes = Takes()
    takes.used(0, 0, numbers(4, 0.5, math.nan))
    assert takes.record()["lost"] == []
    assert takes.record()["train_accuracy"] is None


@pytest.mark.parametrize("servers", [1, 2])
def test_learners_that_are_lost_reach_the_metrics_and_the_summary(tmp_path: Path, servers: int) -> None:
    """All but one learner are lost between two reports, in which every gradient is one that came."""
    order = [{"learner": 0}, {"learner": 1}, {"gone": 1}, {"learner": 2}, {"learner": 2}, {"gone": 0}]
    order += [{"learner": 2}] * 4
    record = tmp_path / "deliveries.jsonl"
    record.write_text("".join(json.dumps(entry) + "\n" for entry in order))
    inputs = torch.arange(96.0).view(24, 4) / 96
    result = stalegrid.train(
        nn.Linear(4, 2),
        TensorDataset(inputs, torch.arange(24) % 2),
        loss=nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        method="softsync",
        learners=3,
        engine="simulator",
        batch_size=4,
        updates=8,
        out=tmp_path / "run",
        quiet=True,
        servers=ServerSettings(number=servers, softsync=3, deliveries=record),
        output=OutputSettings(log_every=4),
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    reports = [line for line in lines if line["kind"] == "train"]
    assert [line["update"] for line in reports] == [4, 8]
    assert [line["lost"] for line in reports] == [[1], [0]]
    assert [line["samples"] for line in reports] == [16, 16]
    assert result.summary["lost_learners"] == [1, 0]
