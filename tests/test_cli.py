"""The command line as a user meets it, in this process and on the simulator."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from stalegrid.cli import main
from stalegrid.methods.published import METHODS, SERVER_METHODS
from stalegrid.methods.references import bibtex
from stalegrid.recipes.settings import RunConfig
from stalegrid.recipes.task import make_task

QUICK = ["--engine", "simulator", "--updates", "6", "--output.log-every", "2"]
Said = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    return main(list(arguments))


def refused(capsys: Said, *arguments: str) -> str:
    """Run what must be refused before anything starts, and return what was said."""
    try:
        status = run("train", *QUICK, *arguments)
    except SystemExit as stopped:  # the parser's own way
        status = int(stopped.code or 0)
    said = capsys.readouterr().err
    assert status == 2, said
    return said


def test_train_writes_what_it_promises(tmp_path: Path, capsys: Said) -> None:
    out = tmp_path / "run"
    assert run("train", *QUICK, "--groups", "2", "--stages", "3", "--staleness", "4,2,0", "--out", str(out)) == 0
    assert str(out) in capsys.readouterr().out.replace("\n", "")
    summary = json.loads((out / "summary.json").read_text())
    expected = {"method": "pham-ahn", "groups": 2, "stages": 3, "updates": 6, "view": "stashed", "spectral_gap": 1.0}
    assert {k: summary[k] for k in expected} == expected
    assert {"test_accuracy", "test_loss", "samples_per_second", "seconds", "consensus_distance"} <= summary.keys()
    assert [s["max"] for s in summary["staleness"]] == [4, 2, 0]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert [line["update"] for line in trained] == [2, 4, 6]
    assert trained[0].keys() >= {"loss", "lr", "staleness", "samples_per_second", "group_loss"}
    assert trained[0]["staleness"].keys() == {f"({s},{k})" for s in range(2) for k in range(3)}


def test_the_model_on_disk_loads_into_the_plain_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run("train", *QUICK, "--out", str(out)) == 0
    model = make_task(RunConfig()).model
    model.load_state_dict(load_file(out / "model.safetensors"))


def test_a_written_configuration_runs_again_to_the_same_bits(tmp_path: Path) -> None:
    assert run("train", *QUICK, "--stages", "3", "--lr", "0.02", "--out", str(tmp_path / "a")) == 0
    config = tmp_path / "a" / "config.yaml"
    assert yaml.safe_load(config.read_text())["optimizer"] == {"lr": 0.02}
    assert run("train", "--config", str(config), "--out", str(tmp_path / "b")) == 0
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_print_config_shows_every_option(capsys: Said) -> None:
    assert run("train", "--batch-size", "7", "--print-config") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["training"]["batch_size"] == 7
    assert shown["method"]["name"] == "pham-ahn"


def test_table_prints_ticks_and_closed_forms(capsys: Said) -> None:
    assert run("table", "--stages", "3", "--staleness", "4,2,0", "--updates", "6") == 0
    shown = capsys.readouterr().out
    assert "F4 B0" in shown
    assert "min(n, 4)" in shown
    assert "all stages can be busy at once" in shown


def test_table_says_who_trains_a_tied_parameter(capsys: Said) -> None:
    assert run("table", "--stages", "3", "--staleness", "4,2,0", "--tied", "0,2") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("tied parameter: trained by stage 0, with mirrors in 2;")
    assert line.endswith("so its staleness is min(n, 4)")


@pytest.mark.parametrize("tied", ["2", "2,0", "1,1", "0,3"])
def test_stages_of_a_tied_parameter_are_two_or_more_in_order(tied: str, capsys: Said) -> None:
    assert run("table", "--stages", "3", "--tied", tied) == 2
    assert f"tied: {tied}, stages: 0 to 2" in capsys.readouterr().err


def test_table_of_a_flush_says_why_stages_idle(capsys: Said) -> None:
    assert run("table", "--method", "1f1b", "--stages", "2") == 0
    assert "every update waits for the pipeline to drain" in capsys.readouterr().out


def test_methods_lists_citations(capsys: Said) -> None:
    assert run("methods") == 0
    shown = capsys.readouterr().out
    for word in ("pham-ahn", "arXiv 2509.05679", "data-parallel", "gpipe", "1f1b", "sgd"):
        assert word in shown
    assert "vectors kept, S = 4 sent an update, S = 4" in " ".join(shown.split())
    (memory,) = (line.split() for line in shown.splitlines() if line.startswith(" dsp") and "min" in line)
    assert " ".join(memory[1:]) == "min(n, 6) min(n, 4) min(n, 2) 0 1 1 1 1 6 4 2 0 0 0 0 0 0 0"


def test_what_groups_send_each_other_is_for_as_many_as_are_asked_for(capsys: Said) -> None:
    for groups, vectors in ((2, "1"), (5, "1.6")):
        assert run("methods", "gpipe", "--groups", str(groups)) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"vectors kept, S = {groups} 0 sent an update, S = {groups} {vectors}" in shown
    assert run("methods", "snoo") == 0  # one group alone keeps what it steps from
    assert "vectors kept, S = 4 3 sent an update, S = 4 0" in " ".join(capsys.readouterr().out.split())
    assert run("methods", "--groups", "0") == 2


def test_a_method_is_described_with_what_to_cite(capsys: Said) -> None:
    assert run("methods", "pipedream-2bw", "--stages", "3") == 0
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines() if line.startswith(" ")]
    assert ["mixing", "all-reduce"] in rows
    assert ["view", "double-buffered"] in rows
    assert ["M", "4"] in rows
    assert "staleness of update n, per stage at K = 3 min(n, 1) min(n, 1) min(n, 1)" in [" ".join(row) for row in rows]
    assert shown.endswith(bibtex()["pipedream-2bw"] + "\n")


@pytest.mark.parametrize("name", [method.name for method in (*METHODS, *SERVER_METHODS)])
def test_every_method_can_be_described(name: str, capsys: Said) -> None:
    assert run("methods", name) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].split()[-1] == name
    assert shown.endswith(bibtex()[name] + "\n")


def test_a_method_that_is_none_is_refused_with_the_nearest(capsys: Said) -> None:
    assert run("methods", "pipedreem") == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "stalegrid methods: unknown method (method: 'pipedreem'); did you mean pipedream? there are: "
    )


BAD: dict[str, tuple[list[str], str]] = {
    "stages-over-layers": (["--stages", "9"], "fewer layers than stages (layers with parameters: 7, stages: 9)"),
    "staleness-length": (["--stages", "3", "--staleness", "4,2"], "one number a stage (staleness: 4,2, stages: 3)"),
    "staleness-increases": (["--staleness", "0,2"], "increases along the stages (staleness: 0,2"),
    "staleness-negative": (["--staleness", "2,-1"], "negative (staleness: 2,-1, stage: 1)"),
    "staleness-of-a-flush": (["--method", "gpipe", "--staleness", "2,0"], "has no staleness"),
    "edges-not-connected": (
        ["--groups", "3", "--topology", "0-1"],
        "do not connect the groups: [[0, 1], [2]]",
    ),
    "edges-not-symmetric": (["--groups", "2", "--topology", "0>1"], "not symmetric"),
    "matrix": (["--topology", "[[0.5,0.5],[0.4,0.6]]"], "sums to"),
    "batch": (["--batch-size", "1000"], "a batch of 1000 samples is more than a group's share of 718"),
    "micro-batches": (["--method", "gpipe", "--method.micro-batches", "5"], "do not divide a batch of 32"),
    "no-data-dir": (["--data", "cifar10"], "--data.folder DIR"),
    "data-dir-missing": (["--data", "mnist", "--data.folder", "/nowhere"], "/nowhere"),
    "model": (["--model", "resnet21"], "unknown model (model: 'resnet21')"),
    "model-for-data": (["--model", "resnet20", "--data", "digits", "--method", "bogus"], "unknown method"),
    "view": (["--view", "yesterday"], "unknown view (view: 'yesterday'); there are: stashed, current"),
    "mixing": (["--mixing", "soup"], "unknown mixing"),
    "topology": (["--topology", "tree"], "unknown topology"),
    "period": (["--mixing.period", "0"], "period counts updates from 1 (period: 0)"),
    "lag": (["--mixing.lag", "-1"], "lag counts updates from 0 (lag: -1)"),
    "groups": (["--groups", "0"], "at least one of its groups (groups: 0)"),
    "sgd-groups": (["--method", "sgd", "--groups", "2"], "sgd trains one group (groups: 2)"),
    "data-parallel-stages": (["--method", "data-parallel", "--stages", "2"], "does not cut the model (stages: 2)"),
    "cuts-unknown": (["--grid.cuts", "middle"], "the model has no such module or operation (cut: 'middle')"),
    "cuts-number": (["--stages", "3", "--grid.cuts", "4"], "3 stages need 2 cuts (cuts: 4)"),
    "world": (["--engine", "processes", "--processes", "3"], "4 units cannot be shared equally by 3 processes"),
    "threads": (["--engine.threads", "0"], "at least one thread, at most 256 (threads: 0)"),
    "epochs": (["--updates", "0"], "no update"),
    "optimizer": (["--lr", "-1"], "the optimizer cannot be built: Invalid learning rate"),
    "optimizer-of-a-method": (["--method", "async-nesterov", "--optimizer", "sgd"], "take torch.optim.NAdam"),
    "nesterov": (["--optimizer", "adam", "--optimizer.nesterov", "true"], "nesterov is for sgd (optimizer: adam)"),
    "queues-and-staleness": (
        ["--method.queues", "1,0", "--staleness", "2,0"],
        "say the same (staleness: [2, 0], queues: [1, 0])",
    ),
    "queues-length": (["--method.queues", "1,1,0"], "queues needs one number a stage (queues: 1,1,0, stages: 2)"),
    "queues-negative": (["--method.queues", "-1,0"], "a queue holds 0 or more (queues: -1,0)"),
    "correction": (["--corrections", "hope"], "unknown correction (correction: 'hope'); there are: inverse-staleness"),
    "correction-number": (["--corrections", "shrink=much"], "shrink takes a number (corrections: 'shrink=much')"),
    "correction-no-number": (["--corrections", "gap-aware=2"], "gap-aware takes no number"),
    "correction-range": (["--corrections", "shrink=1.5"], "(shrink=1.5)"),
    "correction-of-batches": (["--corrections", "dc-asgd", "--method.micro-batches", "4"], "(micro_batches: 4)"),
    "correction-optimizer": (
        ["--corrections", "gap-aware", "--optimizer", "adam"],
        "defined for SGD (optimizer: Adam)",
    ),
    "clip": (["--method.clip", "0"], "positive norm (clip=0.0)"),
    "view-optimizer": (["--view", "predicted", "--optimizer.momentum", "0"], "(optimizer: SGD without momentum)"),
    "view-ahead": (["--view", "double-buffered"], "(micro_batches: 1, staleness of stage 0: 2)"),
    "view-of-a-flush": (["--method", "gpipe", "--view", "double-buffered"], "which a flush forbids"),
    "no-mixing": (
        ["--method", "dsp", "--groups", "2"],
        "dsp says nothing of groups (groups: 2); train one group, or name a mixing",
    ),
    "momentum": (["--mixing.momentum", "true", "--optimizer.momentum", "0"], "there is no momentum to mix"),
    "option": (["--colour", "red"], "unknown option (option: '--colour')"),
    "option-like-another": (["--batchsize", "8"], "did you mean --batch-size?"),
    "option-of-a-group": (["--mixing.perod", "2"], "did you mean --mixing.period?"),
    "type": (["--batch-size", "many"], "--batch-size must be"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_says_what_is_wrong_and_the_value(name: str, capsys: Said) -> None:
    arguments, expected = BAD[name]
    said = refused(capsys, *arguments)
    assert expected in said
    assert "Traceback" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_where_there_is_none(capsys: Said) -> None:
    assert "torch sees no GPU here" in refused(capsys, "--device", "cuda")


def test_an_existing_output_folder_is_left_alone(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "kept").write_text("mine")
    assert "the output folder exists" in refused(capsys, "--out", str(tmp_path))
    assert (tmp_path / "kept").read_text() == "mine"


def test_an_unknown_option_in_yaml(tmp_path: Path, capsys: Said) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("batch_size: 8\nbatchsize: 9\n")
    assert "batchsize" in refused(capsys, "--config", str(config))


def test_a_truncated_data_file(tmp_path: Path, capsys: Said) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        (folder / name).write_bytes(bytes(100))
    said = refused(capsys, "--data", "cifar10", "--data.folder", str(tmp_path))
    assert "data_batch_1.bin" in said
    assert "100" in said
    assert "30730000" in said.replace(",", "")


def test_compare_takes_the_file_of_a_run_and_options(tmp_path: Path, capsys: Said) -> None:
    assert run("train", *QUICK, "--view", "current", "--lr", "0.02", "--out", str(tmp_path / "a")) == 0
    config, out = tmp_path / "a" / "config.yaml", tmp_path / "b"
    capsys.readouterr()
    arguments = ["compare", str(config), "--methods", "pham-ahn,gpipe", "--seeds", "1", "--updates", "4"]
    assert run(*arguments, "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "view current" in said
    assert "for pham-ahn alone" in said
    assert "run 2 of 2: gpipe, seed 0" in said
    assert "test accuracy, %" in said
    made = [yaml.safe_load((out / name / "config.yaml").read_text()) for name in ("pham-ahn-0", "gpipe-0")]
    assert [
        (m["method"]["view"], m["optimizer"]["lr"], m["training"]["updates"], m["method"]["micro_batches"])
        for m in made
    ] == [
        ("current", 0.02, 4, 1),
        ("stashed", 0.02, 4, 4),
    ]
    assert run(*arguments, "--out", str(out)) == 0
    assert "run 1 of 2: pham-ahn, seed 0: is finished already" in capsys.readouterr().out


def test_compare_gives_what_a_file_says_of_its_method_to_that_method(tmp_path: Path, capsys: Said) -> None:
    asked = ("--method", "dsp", "--view", "current", "--mixing", "adapt-then-combine", "--out", str(tmp_path / "a"))
    assert run("train", *QUICK, *asked) == 0
    config, out = tmp_path / "a" / "config.yaml", tmp_path / "b"
    assert run("compare", str(config), "--methods", "dsp,pipedream", "--seeds", "1", "--out", str(out)) == 0
    assert "for dsp alone" in capsys.readouterr().out
    made = [yaml.safe_load((out / f"{name}-0" / "config.yaml").read_text()) for name in ("dsp", "pipedream")]
    assert [(m["method"]["name"], m["method"]["view"]) for m in made] == [("dsp", "current"), ("pipedream", "stashed")]


def test_compare_says_that_a_run_failed_and_exits_with_1(tmp_path: Path, capsys: Said) -> None:
    arguments = ["--methods", "sgd", "--seeds", "1", "--lr", "1e30", "--out", str(tmp_path / "out")]
    assert run("compare", *QUICK, *arguments) == 1
    assert "failed: sgd, seed 0: NonFiniteLoss" in capsys.readouterr().out


BAD_COMPARISONS: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "methods"),
    "no-folder": (["--methods", "sgd"], "name one with --out DIR"),
    "no-file": (["nowhere.yaml", "--methods", "sgd", "--out", "never"], "nowhere.yaml"),
    "method": (["--methods", "sgd,soup", "--out", "never"], "unknown method (method: 'soup')"),
}


@pytest.mark.parametrize("name", list(BAD_COMPARISONS))
def test_a_bad_comparison_is_refused(name: str, capsys: Said) -> None:
    arguments, expected = BAD_COMPARISONS[name]
    try:
        status = run("compare", *arguments)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    assert status == 2
    assert expected in capsys.readouterr().err
    assert not Path("never").exists()


Verify = Callable[..., int]


def test_verify_says_yes_and_exits_with_0(capsys: Said) -> None:
    assert run("verify", "--groups", "2", "--stages", "1", "--updates", "3", "--processes", "1") == 0
    shown = capsys.readouterr().out
    assert shown.count("yes") == 2


def test_verify_says_no_and_exits_with_1(capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    from stalegrid.studies import loops

    real = loops.grid

    def wrong(*arguments: object, **options: object) -> object:
        modules, losses = real(*arguments, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            next(modules[1][0].parameters()).flatten()[0] += 1e-6
        return modules, losses

    monkeypatch.setattr(loops, "grid", wrong)
    assert run("verify", "--groups", "2", "--stages", "1", "--updates", "3", "--processes", "1") == 1
    shown = capsys.readouterr().out
    assert shown.count("yes") == 1
    assert shown.count("NO") == 1
