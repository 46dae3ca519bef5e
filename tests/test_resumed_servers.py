"""A run with servers that was interrupted goes on to the bit of one that was not, in whichever order gradients come."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import stalegrid
from stalegrid.checkpoints import FOLDER, Checkpoint
from stalegrid.errors import ConfigError, Interrupted, OutputError, SampleError
from stalegrid.programs import DELIVERIES, Delivery, Rules
from stalegrid.timing import Cost, CostTable
from tests.cases import Net, build, images
from tests.engines.distributed.test_served import Trap
from tests.programs.test_softsync import orders
from tests.test_metrics import lines, same
from tests.test_stopped import check_same

pytestmark = pytest.mark.thorough

UPDATES = 17
Servers = stalegrid.ServerSettings


def train(out: Path, every: int | None = 5, engine: str = "simulator", **changes: Any) -> stalegrid.Result:
    options: dict[str, Any] = {
        "model": build(Net),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        "scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=4, gamma=0.7),
        "test": images(13),
        "batch_size": 4,
        "updates": UPDATES,
        "quiet": True,
        "output": stalegrid.OutputSettings(folder=out, log_every=2, evaluate_every=0.3),
        "checkpoint": None if every is None else stalegrid.CheckpointSettings(every=every, keep=100),
    }
    options |= changes
    return stalegrid.train(options.pop("model"), images(), engine=engine, **options)  # type: ignore[arg-type]


@contextmanager
def copied(run: Path, version: int) -> Iterator[Path]:
    """Yield a checkpoint in a copy of a run's folder, with all that was written later too."""
    with TemporaryDirectory() as place:
        out = Path(place) / "run"
        shutil.copytree(run, out)
        yield out / FOLDER / f"{version:09d}"


def versions(run: Path) -> list[int]:
    """Return the versions of whole checkpoints."""
    return sorted(int(manifest.parent.name) for manifest in (run / FOLDER).glob("*/manifest.json"))


def record(run: Path) -> str:
    return (run / DELIVERIES).read_text()


def check_resumed(whole: stalegrid.Result, version: int, engine: str = "simulator", **options: Any) -> None:
    assert whole.folder is not None
    with copied(whole.folder, version) as source:
        out = source.parent.parent
        check_same(train(out, engine=engine, resume=source, **options), whole)
        assert record(out) == record(whole.folder), "the record goes on whole"


def check_replayed(run: Path, result: stalegrid.Result, place: Path, servers: Servers, **options: Any) -> None:
    """Hold a run against one in the order of its record."""
    given = Servers(**{**vars(servers), "deliveries": run / DELIVERIES})
    again = train(place, every=None, servers=given, **options)
    assert same(again.model, result.model)
    assert lines(place) == lines(run)
    assert record(place) == record(run)


METHODS = {
    "hardsync": Servers(learners=3),
    "softsync": Servers(learners=4, softsync=2, number=2, max_staleness=2),
    "asgd": Servers(learners=3, number=2),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    options = {"method": name, "servers": METHODS[name]}
    whole = train(tmp_path / "run", **options)
    assert versions(tmp_path / "run") == [5, 10, 15]
    for version in (5, 15):
        check_resumed(whole, version, **options)


def test_an_order_that_is_drawn_in_virtual_time_is_the_same_where_a_run_goes_on(tmp_path: Path) -> None:
    costs = tmp_path / "costs.json"
    CostTable(4, (Cost(forward=1.0, backward=2.0, update=0.5, mix=0.2),)).write(costs)
    devices = stalegrid.DeviceSettings(costs=costs, jitter=0.5)
    options = {"method": "asgd", "servers": Servers(learners=4), "devices": devices}
    whole = train(tmp_path / "run", **options)
    counts = [record(tmp_path / "run").count(f'"learner": {number}') for number in range(4)]
    assert len(set(counts)) > 1, "not all learners come equally often"
    check_resumed(whole, 10, **options)


CORRECTIONS = ("inverse-staleness", "dc-asgd", "dc-asgd-adaptive", "gap-aware", "clip")
RULES = st.builds(
    lambda learners, splits, bound: Rules(learners, learners // min(splits, learners), bound),
    st.integers(1, 4),
    st.integers(1, 4),
    st.none() | st.integers(0, 2),
)


def written(order: list[Delivery], path: Path) -> Path:
    entries = [{"gone": d.learner} if d.gone else {"learner": d.learner} for d in order]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return path


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(case=orders(losses=0.15, some=RULES).filter(lambda case: case[2] > 1), data=st.data())
def test_whatever_the_order_and_the_moment_nothing_shows_that_it_was_interrupted(
    case: Any, data: st.DataObject
) -> None:
    rules, order, updates = case
    correction = data.draw(st.sampled_from(["none", *CORRECTIONS]))
    with TemporaryDirectory() as place:
        servers = Servers(
            learners=rules.learners,
            softsync=rules.learners // rules.gather,
            number=data.draw(st.integers(1, 3)),
            max_staleness=rules.bound,
            momentum_at=data.draw(st.sampled_from(["server", "learner"])),
            deliveries=written(order, Path(place) / "order.jsonl"),
        )
        options: dict[str, Any] = {"method": "softsync", "servers": servers, "corrections": [correction]}
        options |= {"updates": updates, "every": data.draw(st.integers(1, updates - 1))}
        whole = train(Path(place) / "run", **options)
        found = versions(Path(place) / "run")
        assert found == list(range(options["every"], updates, options["every"]))
        check_resumed(whole, data.draw(st.sampled_from(found)), **options)


def test_a_run_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    options = {"method": "asgd", "servers": METHODS["asgd"]}
    whole = train(tmp_path / "run", **options)
    with copied(tmp_path / "run", 5) as first:
        out = first.parent.parent
        train(out, resume=first, **options)
        # The second one is of the resumed run.
        check_same(train(out, resume=first.parent / "000000010", **options), whole)
        assert record(out) == record(tmp_path / "run")


@pytest.mark.parametrize("engine", ["processes", "simulator"])
def test_synchronous_learners_go_on_on_any_engine(engine: str, tmp_path: Path) -> None:
    options = {"method": "hardsync", "servers": Servers(learners=2)}
    whole = train(tmp_path / "run", engine="processes", **options)
    check_resumed(whole, 10, engine=engine, **options)


def test_a_run_whose_order_the_network_makes_goes_on_with_what_comes_and_is_repeated_whole(tmp_path: Path) -> None:
    servers = Servers(learners=3, number=2, softsync=3, max_staleness=2)
    options = {"method": "softsync", "updates": 25}
    train(tmp_path / "run", engine="processes", servers=servers, **options)
    before = record(tmp_path / "run").splitlines()
    with copied(tmp_path / "run", 10) as source:
        run = source.parent.parent
        result = train(run, engine="processes", servers=servers, resume=source, **options)
        assert versions(run) == [5, 10, 15, 20]
        assert record(run).splitlines()[:10] == before[:10], "what was taken before stays"
        check_replayed(run, result, tmp_path / "again", servers, **options)
        # And once more, from what the resumed run has saved.
        result = train(run, engine="processes", servers=servers, resume=run / FOLDER / "000000020", **options)
        check_replayed(run, result, tmp_path / "third", servers, **options)


def test_a_learner_that_is_lost_blocks_no_later_checkpoint_and_a_run_goes_on_without_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # The bound sees to it that it comes: the process of rank 2, the second learner, dies at its fourth batch.
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 6), nn.BatchNorm1d(6), Trap({2: (4, "die")}), nn.Linear(6, 3))
    servers = Servers(learners=3, softsync=3, max_staleness=2)
    options: dict[str, Any] = {"method": "softsync", "updates": 40, "model": model}
    train(tmp_path / "run", engine="processes", every=1, servers=servers, **options)
    gone = next(i for i, line in enumerate(record(tmp_path / "run").splitlines()) if "gone" in line)
    whole = versions(tmp_path / "run")
    assert set(range(gone + 1, 40)) <= set(whole)
    assert set(range(1, 40)) - set(whole) <= set(range(max(1, gone - 8), gone + 1)), "it was saved while it was there"
    with copied(tmp_path / "run", 30) as source:
        run = source.parent.parent
        assert Checkpoint(source).part("group-1-stage-0")[0] == {"dict": []}
        result = train(run, engine="processes", every=1, servers=servers, resume=source, **options)
        assert result.summary["lost_learners"] == [1]
        check_replayed(run, result, tmp_path / "again", servers, **options)


def test_what_was_saved_of_another_future_is_forgotten(tmp_path: Path) -> None:
    options = {"method": "asgd", "servers": METHODS["asgd"]}
    train(tmp_path / "run", **options)
    checkpoints = tmp_path / "run" / FOLDER
    (checkpoints / "000000016").mkdir()  # of which a part at most was written
    train(tmp_path / "run", resume=checkpoints / "000000010", **options)
    assert sorted(folder.name for folder in checkpoints.iterdir() if folder.is_dir()) == [
        "000000005",
        "000000010",
        "000000015",
    ]


LAST = Path(FOLDER, "000000015")
"""The last checkpoint; the runs themselves have come to their ends."""


# Refused


def test_an_order_that_the_engine_would_not_go_on_with_is_refused(tmp_path: Path) -> None:
    options = {"method": "asgd", "servers": Servers(learners=2)}
    train(tmp_path / "drawn", **options)
    with pytest.raises(ConfigError, match=r"drawn in virtual time.*version: 15\); go on with engine simulator"):
        train(tmp_path / "drawn", engine="processes", resume=tmp_path / "drawn" / LAST, **options)
    first, second, *rest = record(tmp_path / "drawn").splitlines(keepends=True)
    (tmp_path / "drawn" / DELIVERIES).write_text("".join([second, first, *rest]))
    with pytest.raises(ConfigError, match=r"in another order than this engine would.*go on with engine processes"):
        train(tmp_path / "drawn", resume=tmp_path / "drawn" / LAST, **options)


@pytest.mark.parametrize("lines", [0, 3])
def test_a_record_that_is_too_short_is_refused(lines: int, tmp_path: Path) -> None:
    options = {"method": "asgd", "servers": Servers(learners=2)}
    train(tmp_path / "run", **options)
    kept = record(tmp_path / "run").splitlines(keepends=True)[:lines]
    (tmp_path / "run" / DELIVERIES).write_text("".join(kept))
    with pytest.raises(ConfigError, match=r"ends before the checkpoint .*version: 15\); put the file back"):
        train(tmp_path / "run", resume=tmp_path / "run" / LAST, **options)


def test_a_record_that_is_not_the_one_that_was_written_is_refused(tmp_path: Path) -> None:
    options = {"method": "asgd", "servers": Servers(learners=2)}
    train(tmp_path / "run", **options)
    path = tmp_path / "run" / DELIVERIES
    path.write_text(path.read_text().replace('"batch": 0', '"batch": 7', 1))
    with pytest.raises((SampleError, ConfigError), match=r"not the one that was written.*put the file back"):
        train(tmp_path / "run", resume=tmp_path / "run" / LAST, **options)
    path.unlink()
    with pytest.raises((OutputError, ConfigError), match=r"deliveries.jsonl"):
        train(tmp_path / "run", resume=tmp_path / "run" / LAST, **options)


def lossy(place: Path) -> Servers:
    order = [Delivery(1), Delivery(1, gone=True), *[Delivery(number) for number in (0, 2) * UPDATES]]
    return Servers(learners=3, deliveries=written(order, place / "order.jsonl"))


def test_a_run_that_repeats_losses_is_saved_as_planned_alone(tmp_path: Path) -> None:
    often = stalegrid.CheckpointSettings(minutes=1)
    with pytest.raises(ConfigError, match=r"checkpoint.minutes: 1, method: asgd\); take checkpoint.every"):
        train(tmp_path / "run", checkpoint=often, method="asgd", servers=lossy(tmp_path))
    assert not (tmp_path / "run").exists()


class Signal(stalegrid.Callback):
    """Interrupts this process at a report."""

    stops = False

    def __init__(self, at: int, number: int = signal.SIGINT) -> None:
        self.at, self.starter, self.number = at, os.getpid(), number

    def on_report(self, record: dict[str, Any]) -> None:
        if record["update"] == self.at:
            os.kill(self.starter, self.number)


def test_then_a_signal_ends_it_at_once_and_it_says_from_where_it_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"method": "asgd", "servers": lossy(tmp_path)}
    whole = train(tmp_path / "whole", **options)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(run, callbacks=[Signal(12)], **options)
    said = f"it goes on from version 10 with: stalegrid resume {run}, or train(..., resume='{run}')"
    assert said in capfd.readouterr().err
    check_same(train(run, resume=run, **options), whole)


# Asked for


@pytest.mark.parametrize("name", METHODS)
def test_a_signal_lets_it_leave_at_the_next_version_and_it_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    options = {"method": name, "servers": METHODS[name], "every": 50}
    whole, run = train(tmp_path / "whole", **options), tmp_path / "run"
    check_same(whole, train(tmp_path / "plain", **{**options, "every": None}))
    asking = [Signal(2), Signal(10)]
    for at in (2, 10):
        with pytest.raises(Interrupted, match="it goes on to the bit with"):
            train(run, callbacks=asking, resume="auto", **options)
        assert at < versions(run)[-1] <= at + 4, "of a few gradients that had come before"
    check_same(train(run, callbacks=asking, resume=run, **options), whole)
    assert record(run) == record(tmp_path / "whole")


@pytest.mark.parametrize("name", METHODS)
def test_real_processes_leave_too_and_the_whole_is_repeated(name: str, tmp_path: Path) -> None:
    servers, run = METHODS[name], tmp_path / "run"
    options: dict[str, Any] = {"method": name, "updates": 300}
    asked: dict[str, Any] = {"engine": "processes", "every": 500, "servers": servers}
    with pytest.raises(Interrupted, match="it goes on to the bit with"):
        train(run, callbacks=[Signal(12, signal.SIGTERM)], **asked, **options)
    (left,) = versions(run)
    assert len(record(run).splitlines()) == left * {"hardsync": 3, "softsync": 2, "asgd": 1}[name]
    result = train(run, resume=run, **asked, **options)
    check_replayed(run, result, tmp_path / "again", servers, **options)


@pytest.mark.parametrize(("name", "engine"), [("softsync", "simulator"), ("hardsync", "processes")])
def test_saves_as_time_passes_are_whole_and_change_nothing(name: str, engine: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": name, "servers": METHODS[name], "engine": engine}
    often = stalegrid.CheckpointSettings(minutes=1e-9, keep=100)
    plain, whole = (
        train(tmp_path / "plain", every=None, **options),
        train(tmp_path / "run", checkpoint=often, **options),
    )
    check_same(plain, whole)
    assert versions(tmp_path / "run") == list(range(1, UPDATES)), "at every version that it could"
    check_resumed(whole, 7, checkpoint=often, **options)


def test_saves_of_real_processes_as_time_passes_are_gone_on_from(tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "asgd", "updates": 40}
    often = {"checkpoint": stalegrid.CheckpointSettings(minutes=1e-9, keep=100), "servers": METHODS["asgd"]}
    train(tmp_path / "run", engine="processes", **often, **options)
    found = versions(tmp_path / "run")
    assert found
    with copied(tmp_path / "run", found[len(found) // 2]) as source:
        run = source.parent.parent
        result = train(run, engine="processes", resume=source, **often, **options)
        check_replayed(run, result, tmp_path / "again", METHODS["asgd"], **options)
