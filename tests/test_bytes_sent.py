"""What units send each other, as it is told, held against the messages that agents make and that processes send."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.agents.keyed import Keyed
from stalegrid.checkpoints.layout import FOLDER
from stalegrid.observe import METRICS, SUMMARY
from stalegrid.observe.scalars import scalars
from stalegrid.plans.membership import LostGroup, Membership, ReturnedGroup
from stalegrid.plans.traffic import mean_traffic
from stalegrid.programs.actions import Action
from stalegrid.programs.grid import OBSERVER
from stalegrid.programs.messages import Message
from stalegrid.programs.stopping import ASKED, VERDICT
from stalegrid.report.report import write_report
from stalegrid.runs import execute
from stalegrid.studies.losing import relive
from tests import cases, tied
from tests.test_stopped import At

Counted = Counter[str]


def counted(message: Message) -> tuple[str, int]:
    return message.tag.edge.name, sum(t.numel() * t.element_size() for t in message.tensors)


def between_units(message: Message) -> bool:
    edge = message.tag.edge
    return OBSERVER not in (edge.source, edge.target) and edge.name not in (VERDICT, ASKED)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Bytes of what agents of this process make for each other, by kind."""
    found, plain = Counted(), Keyed.step

    def step(self: Keyed, action: Action, inbox: Sequence[Message]) -> list[Message]:
        sent = plain(self, action, inbox)
        for name, nbytes in map(counted, filter(between_units, sent)):
            found[name] += nbytes
        return sent

    monkeypatch.setattr(Keyed, "step", step)
    return found


def told(folder: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((folder / SUMMARY).read_text())["bytes_sent"]
    return found


def check(folder: Path, made: Counted) -> None:
    expected = dict(+made)
    assert told(folder) == expected | {"total": sum(expected.values())}


def written() -> Any:
    draw = torch.Generator().manual_seed(0)
    words = torch.randint(0, tied.WORDS, (40, tied.LENGTH), generator=draw)
    return cases.make_task(model=cases.build(tied.Writer), data=TensorDataset(words, words[:, 0]))


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.a.requires_grad_(False)
        self.b.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x.flatten(1)[:, :6])))))


def frozen() -> Any:
    return cases.make_task(model=cases.build(Frozen))


def averaging(**changes: Any) -> stalegrid.MixingSettings:
    return stalegrid.MixingSettings(**({"kind": "combine-while-adapt"} | changes))


GRIDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "stale": (cases.make_task, {"groups": 2, "stages": 3, "staleness": [4, 2, 0], "mixing": averaging()}),
    "late": (
        cases.make_task,
        {"groups": 3, "stages": 2, "mixing": averaging(kind="adapt-then-combine", period=2, lag=2, momentum=True)},
    ),
    "peers": (cases.make_task, {"groups": 4, "mixing": averaging(topology="one-peer-exponential", period=2)}),
    "all-reduce": (cases.make_task, {"method": "1f1b", "groups": 3, "stages": 2, "micro_batches": 2}),
    "travelling targets": (cases.make_task, {"groups": 2, "stages": 3, "targets": "travel", "mixing": averaging()}),
    "unlike sizes": (cases.make_task, {"groups": 3, "stages": 2, "batch_size": [4, 2, 6], "mixing": averaging()}),
    "last batches": (
        cases.make_task,
        {"groups": 2, "stages": 2, "drop_last": False, "batch_size": 8, "mixing": averaging()},
    ),
    "unlike data": (cases.make_task, {"groups": 2, "stages": 2, "split": "shards=2", "mixing": averaging()}),
    "tied": (written, {"groups": 2, "stages": 3, "cuts": tied.CUTS[3], "mixing": averaging()}),
    "frozen": (frozen, {"groups": 2, "stages": 3, "cuts": ["b", "c"], "mixing": averaging()}),
    "means in parts": (cases.make_task, {"groups": 3, "stages": 2, "mixing": averaging(kind="outer", period=2)}),
    "means in parts, of nothing": (
        frozen,
        {"groups": 3, "stages": 3, "cuts": ["b", "c"], "mixing": averaging(kind="outer", period=2)},
    ),
    "one unit": (cases.make_task, {"method": "sgd"}),
}


def settings_of(folder: Path, **changes: Any) -> Any:
    options = {"method": "pham-ahn", "engine": "simulator", "folder": folder, "loggers": []} | changes
    return cases.make_settings(**options)


AVERAGED = ("stale", "late", "peers", "all-reduce", "unlike sizes", "tied", "means in parts")
"""Those whose updates take equally many samples."""


@pytest.mark.parametrize("name", GRIDS)
def test_it_is_what_the_agents_make(name: str, made: Counted, tmp_path: Path) -> None:
    task, options = GRIDS[name]
    execute(task(), settings_of(tmp_path / "run", **options), quiet=True)
    check(tmp_path / "run", made)


OFTEN = ("late", "tied")
"""What every run of the tests looks at."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (name not in OFTEN)) for name in AVERAGED]
)
def test_what_an_update_takes_on_average_is_what_a_longer_run_takes_more(name: str, tmp_path: Path) -> None:
    """Over some cycles; the first updates, in which pipelines fill, are in both runs."""
    task, options = GRIDS[name]
    ends = []
    for updates in (24, 36):
        sized = cases.make_task(**{**vars(task()), "scheduler": None})
        settings = settings_of(tmp_path / str(updates), **options, updates=updates)
        execute(sized, settings, quiet=True)
        ends.append(Counter(told(tmp_path / str(updates))))
    plan = cases.make_plan(sized, settings)
    found = mean_traffic(plan)
    assert {kind: 12 * mean for kind, mean in found.items()} == pytest.approx(
        {kind: nbytes - ends[0][kind] for kind, nbytes in ends[1].items() if kind != "total"}, rel=1e-12
    )
    summary = json.loads((tmp_path / "36" / SUMMARY).read_text())
    assert summary["bytes_per_update"] == found | {"total": sum(found.values())}
    assert summary["bytes_per_sample"] == sum(found.values()) / sum(settings.training.sizes(plan.grid.groups))


@pytest.mark.parametrize("options", [{"method": "hardsync"}, {"method": "softsync", "softsync": 2}, {"method": "asgd"}])
@pytest.mark.parametrize("number", [1, 2])
def test_so_it_is_for_learners(options: dict[str, Any], number: int, made: Counted, tmp_path: Path) -> None:
    settings = cases.make_settings(
        groups=None,
        stages=None,
        learners=4,
        number=number,
        engine="simulator",
        folder=tmp_path / "run",
        loggers=[],
        **options,
    )
    execute(cases.make_task(), settings, quiet=True)
    found = told(tmp_path / "run")
    assert found["push"] == made["push"]
    assert found.get("turn", 0) == made["turn"]
    # Whom servers have answered last may have a gradient under way that no update takes: of three learners at most.
    each = found["weights"] // (cases.UPDATES * {"hardsync": 4, "softsync": 2, "asgd": 1}[options["method"]])
    assert made["weights"] - found["weights"] in [more * each for more in range(4)]


def test_a_run_that_is_stopped_has_sent_what_the_shorter_one_does(made: Counted, tmp_path: Path) -> None:
    options: dict[str, Any] = {"groups": 2, "stages": 2, "staleness": [2, 0], "mixing": averaging(lag=2), "updates": 30}
    settings = settings_of(tmp_path / "run", **options, evaluate_every=0.5)
    task = cases.make_task(test=cases.images(13), scheduler=None)
    result = execute(task, settings, quiet=True, callbacks=[At(6)])
    assert result.summary["version"] < 30
    check(tmp_path / "run", made)


def test_a_run_that_goes_on_adds_to_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"groups": 2, "stages": 2, "staleness": [2, 0], "mixing": averaging()}
    settings = settings_of(
        tmp_path / "run", **options, checkpoint=stalegrid.CheckpointSettings(every=3, keep=9), log_every=2
    )
    execute(cases.make_task(), settings, quiet=True)
    (tmp_path / "other").mkdir()
    shutil.copytree(tmp_path / "run", tmp_path / "other" / "run")
    again = cases.changed(settings, folder=tmp_path / "other" / "run")
    execute(cases.make_task(), again, resume=tmp_path / "other" / "run" / FOLDER / f"{3:09d}", quiet=True)
    assert told(tmp_path / "other" / "run") == told(tmp_path / "run")


def test_groups_that_are_not_there_send_nothing(tmp_path: Path) -> None:
    """Of three groups on a complete graph one is away for updates 3 to 5; reports are of every other update."""
    options: dict[str, Any] = {"groups": 3, "stages": 2, "staleness": [0, 0], "mixing": averaging(topology="complete")}
    engine = stalegrid.EngineSettings(on_loss="continue")
    options |= {"engine": engine, "checkpoint": stalegrid.CheckpointSettings(every=3), "log_every": 2}
    settings = settings_of(tmp_path / "away", **options)
    relive(
        cases.make_task(),
        settings,
        Membership((LostGroup(1, 3, ""),), (ReturnedGroup(1, 6, 0),)),
        tmp_path / "away",
        quiet=True,
    )
    found = told(tmp_path / "away")
    execute(cases.make_task(), settings_of(tmp_path / "all", **options | {"engine": "simulator"}), quiet=True)
    whole = told(tmp_path / "all")
    assert found["activation"] == whole["activation"] * (8 * 3 - 3) // (8 * 3)
    assert found["gradient"] == whole["gradient"] * (8 * 3 - 3) // (8 * 3)
    # Six messages a stage in an update of all, two where there are two groups.
    assert found["parameters"] == whole["parameters"] * (8 * 6 - 3 * 4) // (8 * 6)


def test_it_is_told_wherever_people_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"groups": 2, "stages": 2, "mixing": averaging(), "evaluate_every": 0.5}
    execute(cases.make_task(test=cases.images(13)), settings_of(tmp_path / "run", **options))
    found = told(tmp_path / "run")
    assert f"sent {found['total'] / 1e6:.4g} MB" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    reports = [line for line in lines if line["kind"] == "train"]
    assert [line["bytes_sent"]["activation"] for line in reports] == [
        found["activation"] * n // cases.UPDATES for n in range(1, cases.UPDATES + 1)
    ]
    assert scalars(reports[-1])["sent/total"] == found["total"]
    assert lines[-1]["kind"] == "test"
    assert lines[-1]["bytes_sent"] == found
    write_report(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Megabytes sent over epochs" in page
    assert f"<td>activation</td><td>{found['activation']:,}</td>" in page


SCRIPT = """
import json, os, sys
from collections import Counter
from pathlib import Path
from stalegrid.engines.distributed.channels import Outgoing
from tests import cases
from tests.test_bytes_sent import averaging, between_units, counted, settings_of

found, plain = Counter(), Outgoing.send

def send(self, message):
    if between_units(message):
        name, nbytes = counted(message)
        found[name] += nbytes
    plain(self, message)

Outgoing.send = send
from stalegrid.runs import execute
options = {"groups": 2, "stages": 2, "staleness": [2, 0], "mixing": averaging(), "engine": "processes"}
execute(cases.make_task(), settings_of(Path(sys.argv[1]), **options), quiet=True)
Path(f"{sys.argv[1]}-{os.environ['RANK']}").write_text(json.dumps(found))
"""


@pytest.mark.thorough
def test_it_is_what_processes_send(tmp_path: Path) -> None:
    """Of torchrun, one a unit, so that all messages are sent; they count for themselves what they hand to channels."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run(
        [*command, str(tmp_path / "run")], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr
    sent = Counted()
    for rank in range(4):
        sent += Counter(json.loads((tmp_path / f"run-{rank}").read_text()))
    check(tmp_path / "run", sent)
