"""A run that was interrupted goes on to the bit of one that was not, whatever its grid is made of, at any moment."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from stalegrid.checkpoints.layout import FOLDER
from stalegrid.errors import ConfigError
from stalegrid.methods.published import METHODS
from stalegrid.stages.views.named import VIEWS
from tests.cases import CUTS, OPTIMIZERS, Net, build, images
from tests.test_stopped import check_same

pytestmark = pytest.mark.thorough

UPDATES = 17


def train(out: Path, every: int = 5, engine: Any = "simulator", **changes: Any) -> stalegrid.Result:
    options: dict[str, Any] = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        "scheduler": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=UPDATES),
        "test": images(13),
        "batch_size": 4,
        "updates": UPDATES,
        "quiet": True,
        "output": stalegrid.OutputSettings(folder=out, log_every=2, evaluate_every=0.3),
        "checkpoint": stalegrid.CheckpointSettings(every=every, keep=100),
    }
    return stalegrid.train(build(Net), images(), engine=engine, **(options | changes))


@contextmanager
def copied(run: Path, version: int) -> Iterator[Path]:
    """Yield a checkpoint in a copy of a run's folder, with all that was written later too."""
    with TemporaryDirectory() as place:
        out = Path(place) / "run"
        shutil.copytree(run, out)
        yield out / FOLDER / f"{version:09d}"


def versions(run: Path) -> list[int]:
    return sorted(int(folder.name) for folder in (run / FOLDER).iterdir() if folder.is_dir())


def check_resumed(whole: stalegrid.Result, version: int, engine: Any = "simulator", **options: Any) -> None:
    assert whole.folder is not None
    with copied(whole.folder, version) as source:
        out = source.parent.parent
        check_same(train(out, engine=engine, resume=source, **options), whole)


OUTER = {"diloco": 0, "streaming-diloco": 2, "noloco": 0}
"""Methods that mix too rarely for so short a run, and the lag that they have here."""


def grid_of(name: str) -> dict[str, Any]:
    """Return a grid on which a method is itself."""
    options: dict[str, Any] = {"method": name}
    if name in OPTIMIZERS:
        options |= {"optimizer": OPTIMIZERS[name]}
    if name not in ("sgd", "data-parallel"):
        options |= {"stages": 3, "cuts": CUTS[3]}
    if name in ("pham-ahn", "data-parallel", "sgp", "exact-diffusion", "gradient-tracking", *OUTER):
        options |= {"groups": 3 if name == "diloco" else 2}  # three come to their mean in parts
    if name in (*OUTER, "snoo"):
        options |= {"mixing": stalegrid.MixingSettings(period=4, lag=OUTER.get(name, 0))}
    return options


GRIDS = [method.name for method in METHODS]


@pytest.mark.parametrize("name", GRIDS)
def test_every_method_goes_on_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    whole = train(tmp_path / "run", **grid_of(name))
    assert versions(tmp_path / "run") == [5, 10, 15]
    check_resumed(whole, 10, **grid_of(name))


UNLIKE = {"groups": 3, "stages": 2, "cuts": CUTS[2], "method": "pham-ahn"}
REMEMBERING: dict[str, stalegrid.MixingSettings] = {
    "push-sum": stalegrid.MixingSettings(kind="push-sum", topology="0>1,1>2,2>0,0>2", period=2),
    "exact-diffusion": stalegrid.MixingSettings(kind="exact-diffusion", topology="0-1,1-2"),
    "gradient-tracking": stalegrid.MixingSettings(kind="gradient-tracking", topology="0-1,1-2", period=3),
}


@pytest.mark.parametrize("engine", ["simulator", "processes"])
@pytest.mark.parametrize("rule", REMEMBERING)
def test_what_a_rule_remembers_is_saved(rule: str, engine: Any, tmp_path: Path) -> None:
    whole = train(tmp_path / "run", 4, engine, mixing=REMEMBERING[rule], **UNLIKE)
    for version in (4, 8):
        check_resumed(whole, version, engine, every=4, mixing=REMEMBERING[rule], **UNLIKE)


RULED: list[dict[str, Any]] = [
    {"lag_rule": "delta", "period": 3, "lag": 2, "momentum": True},
    {"lag_rule": "ema", "sparse": 0.3, "lag": 3},
    {"sparse": 0.3, "lag": 2},
]


@pytest.mark.parametrize("mixing", RULED, ids=str)
@pytest.mark.parametrize("version", [5, 10])
def test_snapshots_and_estimates_go_on_too(mixing: dict[str, Any], version: int, tmp_path: Path) -> None:
    options = {**grid_of("pham-ahn"), "mixing": stalegrid.MixingSettings(**mixing)}
    check_resumed(train(tmp_path / "run", **options), version, **options)


@pytest.mark.parametrize("engine", ["simulator", "processes"])
@pytest.mark.parametrize("corrections", [["error-feedback=0.5"], ["stability-rate", "error-feedback-by-staleness"]])
def test_the_last_update_is_fed_back_as_if_nothing_had_happened(
    corrections: list[str], engine: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"stages": 2, "cuts": CUTS[2], "groups": 2, "corrections": corrections}
    whole = train(tmp_path / "run", **options)
    for version in (5, 15):
        check_resumed(whole, version, engine, **options)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_micro_batches_are_added_up_as_if_nothing_had_happened(reduction: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"stages": 3, "cuts": CUTS[3]}
    options["method"] = stalegrid.MethodSettings(name="adl", micro_batches=2, reduction=reduction)  # type: ignore[arg-type]
    check_resumed(train(tmp_path / "run", **options), 10, **options)


CORRECTIONS = ["shrink=0.7", "clip", "inverse-staleness", "pipemare-rate", "error-feedback=0.5", "stability-rate"]
READING = ["dc-asgd", "dc-asgd-adaptive", "gap-aware"]
"""Those that read the weights of a batch's forward, of which an update has one alone."""


RULES: list[dict[str, Any]] = [
    {},
    {"sparse": 0.4},
    {"lag_rule": "delta", "period": 3, "lag": 2},
    {"lag_rule": "delta", "sparse": 0.2, "lag": 3},
    {"lag_rule": "ema", "sparse": 0.2, "lag": 3},
]


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    """Anything that a grid may be made of."""
    stages, groups, micro = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2]))
    staleness = sorted(draw(st.lists(st.integers(0, 6), min_size=stages, max_size=stages)), reverse=True)
    views = sorted(VIEWS) if micro > 1 else [name for name in sorted(VIEWS) if name != "double-buffered"]
    view = draw(st.sampled_from(views))
    if view == "double-buffered":
        staleness = [min(m, micro) for m in staleness]
    corrections = CORRECTIONS if micro > 1 else CORRECTIONS + READING
    options: dict[str, Any] = {
        "stages": stages,
        "cuts": CUTS[stages],
        "groups": groups,
        "staleness": staleness,
        "view": view,
        "micro_batches": micro,
        "corrections": draw(st.lists(st.sampled_from(corrections), max_size=2, unique=True)) or ["none"],
    }
    if groups > 1:
        kind = draw(st.sampled_from(["combine-while-adapt", "adapt-then-combine", "all-reduce"]))
        averages = kind != "all-reduce"
        rule = draw(st.sampled_from(RULES)) if averages else {}
        options["mixing"] = stalegrid.MixingSettings(
            kind=kind,
            period=draw(st.integers(1, 3)) if averages else 1,
            lag=draw(st.integers(0, 3)) if averages else 0,
            momentum=averages and not rule and draw(st.booleans()),
        )
        options["mixing"] = replace(options["mixing"], **rule)
    return options


@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(options=runs(), every=st.integers(1, UPDATES - 1), data=st.data())
def test_whatever_the_grid_and_the_moment_nothing_shows_that_it_was_interrupted(
    options: dict[str, Any], every: int, data: Any
) -> None:
    with TemporaryDirectory() as place:
        whole = train(Path(place) / "run", every, **options)
        version = data.draw(st.sampled_from(versions(Path(place) / "run")))
        check_resumed(whole, version, every=every, **options)


def test_a_run_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    options = {**grid_of("pham-ahn"), "mixing": stalegrid.MixingSettings(kind="adapt-then-combine", lag=2)}
    whole = train(tmp_path / "run", **options)
    with copied(tmp_path / "run", 5) as first:
        for later in (10, 15):
            shutil.rmtree(first.parent / f"{later:09d}")
        train(first.parent.parent, resume=first, **options)
        # The second one is of the resumed run.
        check_same(train(first.parent.parent, resume=first.parent / "000000010", **options), whole)


@pytest.mark.parametrize(("wrote", "reads"), [("processes", "processes"), ("processes", "simulator"), ("simulator", 2)])
def test_the_engine_may_be_another_one(wrote: str, reads: Any, tmp_path: Path) -> None:
    options = {**grid_of("dsp"), "groups": 2, "mixing": "combine-while-adapt"}
    whole = train(tmp_path / "run", engine=wrote, **options)
    engine = stalegrid.EngineSettings(kind="processes", processes=reads) if isinstance(reads, int) else reads
    check_resumed(whole, 10, engine=engine, **options)


class Halfway(stalegrid.CombineWhileAdapt):
    """Goes half as far to its neighbours."""

    def pull(self, gap: torch.Tensor, share: float) -> torch.Tensor:
        return gap.mul_(share / 2)


def test_a_mixing_of_ones_own_goes_on_too_where_it_is_saved_as_planned(tmp_path: Path) -> None:
    options = {"groups": 3, "stages": 2, "cuts": CUTS[2], "mixing": Halfway}
    check_resumed(train(tmp_path / "run", **options), 10, **options)
    with pytest.raises(ConfigError, match=r"mixing of your own.*checkpoint.minutes: 5.*take checkpoint.every"):
        train(tmp_path / "b", checkpoint=stalegrid.CheckpointSettings(minutes=5), **options)
    with pytest.raises(ConfigError, match=r"mixing of your own does not know which groups are there"):
        train(tmp_path / "c", engine=stalegrid.EngineSettings(on_loss="continue"), **options)
