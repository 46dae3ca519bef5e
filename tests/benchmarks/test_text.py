from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.text import CONTEXT, CUTS, FOLDER, LAYERS, batches, decoder, held_out_loss, text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "some.txt").write_text("a rose is a rose, as everybody knows. " * 8000)
    return tmp_path


def test_first_weights_follow_from_the_seed_and_parts_are_joined_by_name(folder: Path) -> None:
    one, again, other = (text(folder, seed, 0.001) for seed in (0, 0, 1))
    states = [task.model.state_dict() for task in (one, again, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    whole = held_out_loss(one, [states[2]])
    names = sorted(states[2])
    parts = [{name: states[2][name] for name in part} for part in (names[:30], names[30:])]
    assert held_out_loss(again, parts) == whole
    assert held_out_loss(other, [states[2]]) == whole
    opposite = [{name: 2 * states[2][name] - value for name, value in states[0].items()}, states[0]]
    assert held_out_loss(again, opposite) == pytest.approx(whole)  # of groups, the mean: up to rounding


def test_processes_have_the_same_samples_together_however_many_they_are(folder: Path) -> None:
    task = text(folder, 0, 0.001)
    alone, shared = batches(task, 3, 1), batches(task, 3, 4)
    for n in (0, 5):
        assert torch.equal(torch.cat([shared.inputs(g, n)[0] for g in range(4)]), alone.inputs(0, n)[0])


def test_cuts_give_every_process_as_many_blocks() -> None:
    blocks = [str(i) for i in range(1, LAYERS + 1)]
    for parts, cuts in CUTS.items():
        bounds = [1, *cuts, LAYERS + 1]
        assert [b - a for a, b in pairwise(bounds)] == [LAYERS // parts] * parts
    names = dict(decoder(10).named_children())
    assert list(names)[1:-1] == blocks
    assert decoder(10)(torch.zeros(2, CONTEXT, dtype=torch.int64)).shape == (2, 10, CONTEXT)
