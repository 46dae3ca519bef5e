"""A run in another shape goes on as it would have, where mathematics allows; else it says what is not as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stalegrid
from stalegrid.checkpoints import read_checkpoint
from stalegrid.data import Batches
from stalegrid.errors import ConfigError
from stalegrid.transfer.reading import read_whole
from tests.transfer.runs import OPTIMIZERS, SCHEDULES, UPDATES, Shared, at, check_equal, data, net, train

MIXED = stalegrid.MixingSettings(kind="adapt-then-combine", period=2)


def started(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())["start"]
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_staleness_more_stages_and_then_fewer_are_the_undisturbed_run(
    tmp_path: Path, optimizer: str, schedule: str
) -> None:
    same: dict[str, Any] = {"optimizer": OPTIMIZERS[optimizer], "scheduler": SCHEDULES[schedule]}
    whole = train(tmp_path / "whole", stages=2, **same)
    train(tmp_path / "more", stages=4, resume=at(tmp_path / "whole", 4), reshape=True, **same)
    fewer = train(tmp_path / "fewer", method="sgd", resume=at(tmp_path / "more", 8), reshape=True, **same)
    check_equal(fewer.model, whole.model)
    assert started(tmp_path / "fewer")["batches_dropped"] == 0


def test_what_stages_share_and_what_no_state_dict_has_moves_too(tmp_path: Path) -> None:
    model = Shared()
    whole = train(tmp_path / "whole", model, stages=2)
    three = train(tmp_path / "three", model, stages=3, cuts=["b", "c"], resume=at(tmp_path / "whole", 4), reshape=True)
    assert three.summary["tied"] == {"a.weight": [0, 2]}
    one = train(tmp_path / "one", model, method="sgd", resume=at(tmp_path / "three", 6), reshape=True)
    check_equal(three.model, whole.model)
    check_equal(one.model, whole.model)


def test_each_of_as_many_groups_goes_on_from_its_own(tmp_path: Path) -> None:
    grid: dict[str, Any] = {"method": "pham-ahn", "groups": 2, "mixing": MIXED}
    whole = train(tmp_path / "whole", stages=2, staleness=[0, 0], **grid)
    other = train(tmp_path / "other", stages=1, staleness=[0], resume=at(tmp_path / "whole", 4), reshape=True, **grid)
    check_equal(other.model, whole.model)
    assert started(tmp_path / "other")["groups"] == "own"


def test_another_number_of_groups_goes_on_from_the_mean(tmp_path: Path) -> None:
    train(tmp_path / "two", method="pham-ahn", groups=2, stages=2, mixing="none", updates=5)
    mean = read_whole(read_checkpoint(at(tmp_path / "two", 4)))
    # The run that goes on makes one update with a rate of 0: its model is the one that it began with.
    still = OPTIMIZERS["sgd"].func  # type: ignore[union-attr]
    begun = train(
        tmp_path / "one",
        method="sgd",
        batch_size=8,
        optimizer=lambda parameters: still(parameters, lr=0.0, momentum=0.9),
        updates=5,
        resume=at(tmp_path / "two", 4),
        reshape=True,
    )
    for name, parameter in begun.model.named_parameters():
        assert torch.equal(parameter, mean.tensors[name]), name
    assert started(tmp_path / "one")["groups"] == "mean"


def test_a_stale_run_says_what_it_dropped_and_counts_every_batch_once(tmp_path: Path) -> None:
    train(tmp_path / "stale", method="pipedream", stages=3)
    result = train(tmp_path / "one", method="sgd", resume=at(tmp_path / "stale", 6), reshape=True)
    assert started(tmp_path / "one") == {
        "checkpoint": str(at(tmp_path / "stale", 6)),
        "version": 6,
        "update": 6,
        "groups": "own",
        "batches_dropped": 2,
        "samples_twice": 0,
    }
    # Batches in flight had counted in the statistics, and are forwarded again.
    assert result.model.get_buffer("1.num_batches_tracked") == UPDATES


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "pipedream", "stages": 2, "view": view}
        for view in ("current", "recomputed", "predicted-twice", "corrected")
    ]
    + [
        {"method": "pipedream-2bw", "stages": 2, "micro_batches": 2},
        {"method": "pham-ahn", "groups": 3, "stages": 2, "batch_size": 2, "mixing": stalegrid.MixingSettings(lag=3)},
        {"method": "data-parallel", "groups": 2, "batch_size": 2},
    ],
    ids=str,
)
def test_any_shape_goes_on_and_is_resumed_to_the_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    train(tmp_path / "before", method="pipedream", stages=3, updates=5)
    changes = {**changes, "updates": 14}
    whole = train(tmp_path / "after", resume=at(tmp_path / "before", 4), reshape=True, **changes)
    begins = started(tmp_path / "after")["update"]
    again = train(tmp_path / "after", resume=at(tmp_path / "after", begins // 2 * 2 + 2), **changes)
    check_equal(again.model, whole.model)


def test_processes_go_on_as_the_simulator_does(tmp_path: Path) -> None:
    train(tmp_path / "before", method="pham-ahn", groups=2, stages=2, updates=5)
    shape: dict[str, Any] = {"method": "pham-ahn", "groups": 2, "stages": 1, "resume": at(tmp_path / "before", 4)}
    one = train(tmp_path / "one", reshape=True, **shape)
    other = train(tmp_path / "other", reshape=True, **{**shape, "engine": "processes"})
    check_equal(one.model, other.model)


def test_batches_of_another_size_go_on_at_the_same_place_in_the_data(tmp_path: Path) -> None:
    train(tmp_path / "small", method="sgd", updates=13)  # 10 updates an epoch
    train(tmp_path / "large", method="sgd", batch_size=10, updates=9, resume=at(tmp_path / "small", 12), reshape=True)
    found = started(tmp_path / "large")
    assert (found["version"], found["update"], found["samples_twice"]) == (12, 4, 8)
    first = json.loads((tmp_path / "large" / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["update"], first["epoch"]) == (5, 1.25)


def test_rates_and_horizons_are_those_that_are_asked_for_now(tmp_path: Path) -> None:
    cycle = torch.optim.lr_scheduler.OneCycleLR
    train(tmp_path / "short", method="sgd", updates=6, scheduler=lambda o: cycle(o, 0.1, total_steps=6))
    longer = lambda o: cycle(o, 0.2, total_steps=12)  # noqa: E731
    train(
        tmp_path / "long",
        method="sgd",
        updates=12,
        scheduler=longer,
        resume=at(tmp_path / "short", 4),
        reshape=True,
    )
    model = net()
    optimizer = OPTIMIZERS["sgd"](list(model.parameters()))  # type: ignore[arg-type]
    schedule, rates = longer(optimizer), []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    lines = [json.loads(line) for line in (tmp_path / "long" / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines if line["kind"] == "train"] == rates[4:]


def test_another_shape_needs_the_word_and_a_folder_of_its_own(tmp_path: Path) -> None:
    train(tmp_path / "run", method="sgd", updates=5)
    with pytest.raises(ConfigError, match=r"batch_size: 8, then: 4.*or go on in another shape.*\(reshape\)"):
        train(tmp_path / "run", method="sgd", batch_size=8, updates=5, resume=at(tmp_path / "run", 4))
    with pytest.raises(ConfigError, match=r"leaves the other one's folder as it is.*name a new one"):
        train(tmp_path / "run", stages=2, updates=9, resume=tmp_path / "run", reshape=True)
    with pytest.raises(ConfigError, match=r"nothing is left to train \(updates: 4, the run begins after: 4\)"):
        train(tmp_path / "new", stages=2, updates=4, resume=tmp_path / "run", reshape=True)
    assert not (tmp_path / "new").exists()


def test_another_model_optimizer_or_kind_of_run_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", method="sgd", updates=5)
    again: dict[str, Any] = {"resume": tmp_path / "run", "reshape": True}
    wider = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3))
    with pytest.raises(ConfigError, match=r"of another model \(tensor: 0.weight, \(8, 6\).*here: \(9, 6\)"):
        train(tmp_path / "new", wider, method="sgd", **again)
    longer = net()
    assert isinstance(longer, nn.Sequential)
    longer.append(nn.Linear(3, 3))
    with pytest.raises(ConfigError, match=r"parameter: 7.bias, which it lacks"):
        train(tmp_path / "new", longer, method="sgd", **again)
    with pytest.raises(ConfigError, match=r"in its type"):
        train(tmp_path / "new", method="sgd", dtype="float64", **again)
    with pytest.raises(ConfigError, match=r"of another optimizer \(of: SGD, asked for: AdamW\)"):
        train(tmp_path / "new", method="sgd", optimizer=OPTIMIZERS["adamw"], **again)
    with pytest.raises(ConfigError, match=r"begins with the model alone \(method: hardsync\)"):
        train(tmp_path / "new", method="hardsync", learners=2, micro_batches=None, checkpoint=None, **again)
    assert not (tmp_path / "new").exists()


def test_it_says_so_where_somebody_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", method="pipedream", stages=2, updates=5)
    train(tmp_path / "new", method="sgd", resume=tmp_path / "run", reshape=True, quiet=False)
    assert "not to the bit: 1 batches in flight were dropped" in " ".join(capsys.readouterr().out.split())


def test_a_run_begins_with_the_state_of_a_plain_loop(tmp_path: Path) -> None:
    model = net()
    optimizer = OPTIMIZERS["adamw"](list(model.parameters()))  # type: ignore[arg-type]
    for x, y in torch.utils.data.DataLoader(data(), 8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    stalegrid.save_exported(tmp_path / "loop.safetensors", model, optimizer)
    same: dict[str, Any] = {"optimizer": OPTIMIZERS["adamw"], "start_from": tmp_path / "loop.safetensors"}
    cut = train(tmp_path / "cut", stages=3, **same)
    batches = Batches(data(), groups=1, batch_size=4, seed=3)
    for n in range(UPDATES):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(*batches.inputs(0, n)), batches.targets(0, n)).backward()
        optimizer.step()
    check_equal(cut.model, model)
    again = train(tmp_path / "cut", stages=3, resume=at(tmp_path / "cut", 4), **same)
    check_equal(again.model, model)
    with pytest.raises(ConfigError, match=r"began with another model \(start_from: None, then: .*loop.safetensors\)"):
        train(tmp_path / "cut", stages=3, resume=at(tmp_path / "cut", 4), optimizer=OPTIMIZERS["adamw"])


def test_frozen_parameters_of_a_file_are_measured_too(tmp_path: Path) -> None:
    model = Shared()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    stalegrid.save_exported(tmp_path / "loop.safetensors", model, optimizer)
    begun = train(
        tmp_path / "run",
        Shared(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        stages=2,
        start_from=tmp_path / "loop.safetensors",
    )
    plain = train(tmp_path / "plain", model, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), stages=2)
    check_equal(begun.model, plain.model)
    assert begun.summary["test_loss"] == plain.summary["test_loss"]


def test_a_run_begins_with_one_thing(tmp_path: Path) -> None:
    train(tmp_path / "run", method="sgd", updates=5)
    with pytest.raises(ConfigError, match=r"begins with one thing"):
        train(tmp_path / "new", resume=tmp_path / "run", reshape=True, start_from="model.safetensors")


def test_samples_are_read_ahead_from_where_it_goes_on(tmp_path: Path) -> None:
    train(tmp_path / "run", method="sgd", updates=5)
    options: dict[str, Any] = {"resume": tmp_path / "run", "reshape": True, "method": "1f1b", "stages": 2}
    whole = train(tmp_path / "whole", **options)
    read = train(tmp_path / "read", samples=list(data()), workers=1, **options)
    check_equal(read.model, whole.model)
