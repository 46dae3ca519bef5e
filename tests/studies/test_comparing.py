"""A comparison: fair, complete, kept when interrupted, and counted right."""

import dataclasses
import json
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file

from stalegrid.data import Batches, opened
from stalegrid.errors import ConfigError, NonFiniteLoss
from stalegrid.methods.choose import find_grid
from stalegrid.methods.settings import MethodSettings
from stalegrid.recipes.settings import RunConfig
from stalegrid.recipes.task import make_task
from stalegrid.runs import execute
from stalegrid.studies import comparing as module
from stalegrid.studies.comparing import compare, configuration
from stalegrid.studies.comparison import failures, table
from tests.cases import changed, flat

BASE = flat(RunConfig, groups=2, stages=2, updates=12, engine="simulator", log_every=4, evaluate_every=0.2, seed=5)
SHORT = changed(BASE, updates=2)
METHODS = ["sgd", "pham-ahn", "1f1b"]
SGD = find_grid("sgd")
FIRST = "sgd-5"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "done"
    compare(BASE, METHODS, 2, out, quiet=True)
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the runs that are trained from now on."""
    names: list[str] = []
    after_training(monkeypatch, lambda config: names.append(config.output.folder.name))
    return names


def after_training(monkeypatch: pytest.MonkeyPatch, do: Callable[[Any], None]) -> None:
    def execute_and_do(task: Any, config: Any, **options: Any) -> None:
        execute(task, config, **options)
        do(config)

    monkeypatch.setattr(module, "execute", execute_and_do)


def summaries(out: Path, method: str) -> list[dict[str, Any]]:
    return [json.loads((out / f"{method}-{seed}" / "summary.json").read_text()) for seed in (5, 6)]


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def cell(comparison: dict[str, Any], method: str, heading: str) -> str:
    headings, *rows = table(comparison)
    (row,) = [row for row in rows if row[0] == method]
    return row[headings.index(heading)]


# Fair


def test_a_run_of_a_comparison_is_the_plain_run(finished: Path, tmp_path: Path) -> None:
    summary = json.loads((finished / FIRST / "summary.json").read_text())
    alone = flat(
        RunConfig,
        method="sgd",
        groups=1,
        stages=summary["stages"],
        cuts=summary["cuts"],
        batch_size=64,
        updates=12,
        engine="simulator",
        log_every=4,
        seed=5,
        out=tmp_path / "alone",
    )
    execute(make_task(alone), alone, quiet=True)
    a, b = (load_file(folder / "model.safetensors") for folder in (finished / FIRST, tmp_path / "alone"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert losses(finished / FIRST) == losses(tmp_path / "alone")


def test_every_method_sees_the_same_samples_at_every_update() -> None:
    data = opened(make_task(BASE).data)
    seen = []
    for name in (*METHODS, "data-parallel", "gpipe"):
        config = configuration(BASE, name)
        groups, size, seed = config.grid.groups, config.training.batch_size, config.training.seed
        assert groups
        batches = Batches(data, groups=groups, batch_size=size, seed=seed)
        seen.append([torch.cat([batches.indices(s, n) for s in range(groups)]).tolist() for n in range(30)])
    assert all(samples == seen[0] for samples in seen)


def test_groups_of_unlike_sizes_are_merged_into_larger_ones() -> None:
    grid = dataclasses.replace(BASE.grid, groups=4)
    training = dataclasses.replace(BASE.training, batch_size=[8, 2, 4, 2])
    base = dataclasses.replace(BASE, grid=grid, training=training)
    assert configuration(base, "sgd").training.batch_size == 16
    assert configuration(base, "data-parallel").training.batch_size == [8, 2, 4, 2]


def test_every_method_starts_from_the_same_weights_and_every_seed_from_others() -> None:
    def start(method: str, seed: int) -> torch.Tensor:
        config = changed(configuration(BASE, method), seed=seed)
        return next(make_task(config).model.parameters()).detach()

    assert torch.equal(start("sgd", 0), start("pham-ahn", 0))
    assert not torch.equal(start("sgd", 0), start("sgd", 1))


def test_what_belongs_to_a_method_is_not_given_to_another() -> None:
    own = {"staleness": [4, 0], "view": "current", "corrections": ["gap-aware"], "micro_batches": 2}
    own |= {"reduction": "sum"}
    base = changed(BASE, **own)
    assert configuration(base, "pham-ahn") == base
    other = configuration(base, "1f1b").method
    assert {name: getattr(other, name) for name in own} == dict.fromkeys(own)
    assert other == MethodSettings(name="1f1b")


def test_a_mixing_is_for_methods_that_have_none() -> None:
    base = changed(BASE, mixing="adapt-then-combine")
    assert configuration(base, "pham-ahn").mixing.kind == "adapt-then-combine"
    assert configuration(base, "dsp").mixing.kind == "adapt-then-combine"
    assert configuration(base, "1f1b").mixing.kind is None


def test_a_single_group_needs_no_graph() -> None:
    base = changed(BASE, groups=4, topology="0-1,1-2,2-3", processes=8)
    config = configuration(base, "data-parallel")
    assert (config.grid.groups, config.grid.stages, config.training.batch_size) == (4, 1, 32)
    assert (config.mixing.topology, config.engine.processes) == ("0-1,1-2,2-3", 4)
    config = configuration(base, "sgd")
    assert (config.grid.groups, config.training.batch_size, config.mixing.topology) == (1, 128, None)


def test_all_methods_are_cut_at_the_same_place(finished: Path) -> None:
    cuts = [s["cuts"] for name in METHODS for s in summaries(finished, name) if s["stages"] == 2]
    assert len(cuts) >= 4
    assert all(cut == cuts[0] for cut in cuts)


def test_a_grid_that_is_left_open_is_the_largest_of_the_methods(tmp_path: Path) -> None:
    base = changed(SHORT, groups=None, stages=None)
    made = compare(base, ["sgd", "gpipe"], 1, tmp_path / "out", quiet=True)
    assert "1 x 2 (groups x stages)" in made["title"]


# Counted right


def test_the_table_is_what_the_summaries_say(finished: Path) -> None:
    made = json.loads((finished / "comparison.json").read_text())
    for name in METHODS:
        accuracy = [100 * s["test_accuracy"] for s in summaries(finished, name)]
        shown = f"{sum(accuracy) / 2:.2f} ± {statistics.stdev(accuracy):.2f}"
        assert cell(made, name, "test accuracy, %") == shown
        loss = [s["test_loss"] for s in summaries(finished, name)]
        assert cell(made, name, "test loss") == f"{sum(loss) / 2:.3f} ± {statistics.stdev(loss):.3f}"
        assert cell(made, name, "runs") == "2 of 2"
    assert cell(made, "pham-ahn", "staleness per stage, at most") == "2, 0"
    text = (finished / "comparison.md").read_text()
    assert all(" | ".join(row) in text for row in table(made))


def test_the_curve_is_mean_and_range_of_the_evaluations(finished: Path) -> None:
    made = json.loads((finished / "comparison.json").read_text())
    assert made["curve"] == "test accuracy"
    last = made["curves"]["sgd"][-1]
    accuracy = [s["test_accuracy"] for s in summaries(finished, "sgd")]
    assert last["mean"] == pytest.approx(statistics.mean(accuracy))
    assert (last["min"], last["max"]) == (min(accuracy), max(accuracy))
    assert last["epoch"] == pytest.approx(12 / 22)
    assert len(made["curves"]["sgd"]) == 3


def test_the_plot_is_a_picture(finished: Path) -> None:
    assert (finished / "comparison.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(finished / "comparison.png")
    assert pixels.shape[0] > 400
    assert pixels.std() > 0.05


def test_one_seed_has_no_spread(copied: Path, trained: list[str]) -> None:
    made = compare(BASE, METHODS, 1, copied, quiet=True)
    assert "±" not in cell(made, "sgd", "test accuracy, %")
    assert not trained


def test_what_summaries_add_by_stage_is_shown(copied: Path) -> None:
    for path in copied.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        late = summary["method"] == "pham-ahn"
        for stage in summary["staleness"]:
            stage |= {"gap": 0.5 if late and not stage["stage"] else None, "held": 3e6}
        path.write_text(json.dumps(summary))
    made = compare(BASE, METHODS, 2, copied, quiet=True)
    assert cell(made, "pham-ahn", "gap per stage") == "0.5, -"
    assert cell(made, "pham-ahn", "memory held per stage, MB") == "3.00, 3.00"
    assert cell(made, "sgd", "gap per stage") == "-"


def test_what_is_sent_and_how_far_groups_are_apart_is_shown_where_there_is_any(finished: Path) -> None:
    made = json.loads((finished / "comparison.json").read_text())
    (sent,) = {s["bytes_per_sample"] for s in summaries(finished, "pham-ahn")}
    assert cell(made, "pham-ahn", "kB sent a sample") == f"{sent / 1000:.4g}"
    apart = [s["consensus_distance"] for s in summaries(finished, "pham-ahn")]
    shown = f"{statistics.fmean(apart):.2g} ± {statistics.stdev(apart):.2g}"
    assert cell(made, "pham-ahn", "consensus distance") == shown
    assert cell(made, "sgd", "consensus distance") == "-"
    assert "JS distance" not in table(made)[0]


# Kept


def test_the_same_command_again_trains_nothing(copied: Path, trained: list[str]) -> None:
    before = (copied / "comparison.json").read_text()
    (copied / "comparison.png").unlink()
    compare(BASE, METHODS, 2, copied, quiet=True)
    assert not trained
    assert (copied / "comparison.json").read_text() == before
    assert (copied / "comparison.png").exists()


def test_an_unfinished_run_is_trained_anew_to_the_same_bits(copied: Path, finished: Path, trained: list[str]) -> None:
    path = copied / FIRST / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "updates": 8}))
    compare(BASE, METHODS, 2, copied, quiet=True)
    assert trained == [FIRST]
    assert losses(copied / FIRST) == losses(finished / FIRST)


def test_an_interruption_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(config: Any) -> None:
        if config.method.name == "pham-ahn":
            (config.output.folder / "summary.json").unlink()
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        after_training(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            compare(SHORT, METHODS, 1, out, quiet=True)
    made = json.loads((out / "comparison.json").read_text())
    assert [cell(made, name, "runs") for name in METHODS] == ["1 of 1", "0 of 1", "0 of 1"]
    again: list[str] = []
    after_training(monkeypatch, lambda config: again.append(config.output.folder.name))
    compare(SHORT, METHODS, 1, out, quiet=True)
    assert again == ["pham-ahn-5", "1f1b-5"]


def test_methods_can_be_added(copied: Path, trained: list[str]) -> None:
    open_grid = changed(BASE, groups=None, stages=None)
    made = compare(open_grid, [*METHODS, "data-parallel"], 1, copied, quiet=True)
    assert trained == ["data-parallel-5"]
    assert cell(made, "data-parallel", "S x K") == "2 x 1"


def test_a_run_whose_numbers_go_wrong_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(config: Any) -> None:
        if config.method.name == "pham-ahn":
            (config.output.folder / "summary.json").unlink()
            raise NonFiniteLoss("the loss is nan (unit: (0,1))")

    after_training(monkeypatch, diverge)
    made = compare(SHORT, METHODS, 1, tmp_path / "out", quiet=True)
    assert [cell(made, name, "runs") for name in METHODS] == ["1 of 1", "0 of 1, 1 failed", "1 of 1"]
    assert failures(made) == ["pham-ahn, seed 5: NonFiniteLoss: the loss is nan (unit: (0,1))"]
    assert failures(made)[0] in (tmp_path / "out" / "comparison.md").read_text()


def test_nothing_but_failures_is_a_comparison_too(tmp_path: Path) -> None:
    made = compare(changed(BASE, lr=1e30), ["sgd"], 1, tmp_path / "out", quiet=True)
    assert "NonFiniteLoss" in failures(made)[0]
    assert table(made) == [["method", "S x K", "runs"], ["sgd", cell(made, "sgd", "S x K"), "0 of 1, 1 failed"]]
    assert (tmp_path / "out" / "comparison.png").exists()


# Refused before anything is trained

REFUSED: dict[str, tuple[dict[str, Any], list[str], int, str]] = {
    "method": ({}, ["sgd", "soup"], 1, "unknown method (method: 'soup')"),
    "own-method": ({"method": "soup"}, ["sgd"], 1, "unknown method (method: 'soup')"),
    "none": ({}, [], 1, "a comparison needs methods"),
    "twice": ({}, ["sgd", "sgd"], 1, "each named once (methods: 'sgd,sgd')"),
    "seeds": ({}, ["sgd"], 0, "at least one seed (seeds: 0)"),
    "grid": ({"groups": 0}, ["sgd"], 1, "groups: 0"),
    "combination": ({"batch_size": 30}, ["sgd", "gpipe"], 1, "gpipe cannot be compared: 4 micro-batches do not divide"),
    "groups-of-no-method": ({}, ["sgd", "dsp"], 1, "dsp cannot be compared: dsp says nothing of groups (groups: 2)"),
    "own": ({"staleness": [1, 2]}, ["sgd", "pham-ahn"], 1, "pham-ahn cannot be compared: staleness increases"),
    "processes": ({"engine": "processes", "processes": 3}, ["sgd", "1f1b"], 1, "shared equally by 3 processes"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str, tmp_path: Path, trained: list[str]) -> None:
    changes, methods, seeds, expected = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        compare(changed(BASE, **changes), methods, seeds, tmp_path / "out", quiet=True)
    assert expected in str(caught.value)
    assert not trained
    assert not (tmp_path / "out").exists()


def test_runs_of_another_configuration_are_not_mixed_in(copied: Path, trained: list[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"another configuration \(out: .*copy, training.epochs: None there, 3.0 here\)"
    ):
        compare(changed(BASE, epochs=3.0), METHODS, 3, copied, quiet=True)
    assert not trained


def test_a_folder_of_something_else_is_left_alone(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"is of no comparison"):
        compare(BASE, METHODS, 1, finished / FIRST, quiet=True)


def test_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match="run it without torchrun"):
        compare(BASE, METHODS, 1, tmp_path / "out", quiet=True)


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'stalegrid\[plot\]'"):
        compare(BASE, METHODS, 1, tmp_path / "out", quiet=True)


def test_a_method_by_two_names_is_named_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="each named once"):
        compare(BASE, ["sgd", f"{__name__}:SGD"], 1, tmp_path / "out", quiet=True)


def test_a_method_is_its_own_by_whichever_name() -> None:
    base = changed(BASE, method=f"{__name__}:SGD", micro_batches=2)
    assert configuration(base, "sgd").method == base.method
