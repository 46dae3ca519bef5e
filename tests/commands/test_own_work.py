"""The user's own model, data, loss, optimizer, schedule and parts of a method on the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from stalegrid.cli import main
from tests.commands.own import modules_of

Said = pytest.CaptureFixture[str]

WHAT = ("--model", "nets:make", "--data", "sets:make")
HOW = ("--batch-size", "4", "--updates", "4", "--groups", "1", "--stages", "2")
QUICK = (*HOW, "--engine", "simulator")


def run(*arguments: str) -> None:
    assert main(arguments) == 0


def bits(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = bits(one), bits(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def refused(capsys: Said, *arguments: str) -> str:
    """Return the one line with which a command is refused before it leaves anything behind."""
    before = sorted(path.name for path in Path.cwd().iterdir() if path.name != "__pycache__")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert sorted(path.name for path in Path.cwd().iterdir() if path.name != "__pycache__") == before
    return said


@pytest.mark.timeout(120)
def test_processes_simulator_and_a_second_run_have_the_same_bits(own: Path) -> None:
    """Everything is the user's own, and workers find it too."""
    asked = (
        *(*WHAT, "--model.args.width", "24", "--data.args.samples=48", "--loss", "nets:Loss", "--loss.args.smooth=0.1"),
        *("--optimizer", "torch.optim:RMSprop", "--lr", "1e-2", "--optimizer.args", "{alpha: 0.9}"),
        *("--schedule", "nets:falling", "--schedule.args.by", "0.5", "--topology", "0-1", "--mixing", "nets:MIXING"),
        *("--method", "nets:LAZY", "--view", "nets:View", "--corrections", "nets:Fade,clip=1"),
        *("--batch-size", "4", "--updates", "4", "--groups", "2"),
    )
    run("train", *asked, "--engine", "processes", "--processes", "2", "--out", "a")
    said = yaml.safe_load((own / "a" / "config.yaml").read_text())
    cuts = ",".join(said["grid"]["cuts"])  # by measured time, which may be another the next time
    run("train", *asked, "--cuts", cuts, "--engine", "simulator", "--out", "b")
    run("train", "--config", "a/config.yaml", "--engine", "simulator", "--out", "c")
    assert same(own / "a", own / "b")
    assert same(own / "a", own / "c")
    assert {len(v) for v in bits(own / "a").values() if v.ndim == 1} == {24, 3}
    assert said["model"] == {"name": "nets:make", "args": {"width": 24}}
    assert said["data"] == {"name": "sets:make", "args": {"samples": 48}}
    assert said["loss"] == {"name": "nets:Loss", "args": {"smooth": 0.1}}
    assert said["optimizer"] == {"name": "torch.optim:RMSprop", "args": {"alpha": 0.9}, "lr": 0.01}
    assert said["schedule"] == {"name": "nets:falling", "args": {"by": 0.5}}
    assert (said["method"]["name"], said["method"]["view"]) == ("nets:LAZY", "nets:View")
    assert said["method"]["corrections"] == ["nets:Fade", "clip=1"]


PARTS: dict[str, tuple[str, ...]] = {
    "loss": ("--loss", "nets:Loss", "--loss.args.smooth", "0.2"),
    "optimizer": ("--optimizer", "torch.optim:RMSprop"),
    "names": ("--optimizer", "nets:by_names", "--optimizer.args.fast", "0.w"),
    "several": ("--optimizer", "nets:MANY"),
    "schedule": ("--schedule", "nets:falling", "--schedule.args.by", "0.5"),
    "corrections": ("--corrections", "nets:Fade"),
    "args": ("--model.args.depth", "2"),
    "seed": ("--seed", "1"),
}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_makes_a_difference(part: str, own: Path) -> None:
    run("train", *WHAT, *QUICK, "--out", "usual")
    run("train", *WHAT, *QUICK, *PARTS[part], "--out", "own")
    assert not same(own / "usual", own / "own")


def test_a_factory_gets_names_of_the_model_and_its_arguments(own: Path) -> None:
    args = ("--optimizer", "nets:by_names", "--optimizer.args.fast", "0.w", "--lr", "0.01", "--schedule", "constant")
    wide = (*QUICK, "--updates", "1", "--batch-size", "4")
    run("train", *WHAT, *wide, *args, "--out", "fast")
    run("train", *WHAT, *wide, *args, "--optimizer.args.fast", "none", "--out", "usual")
    fast, usual = bits(own / "fast"), bits(own / "usual")
    assert {name for name in usual if not torch.equal(fast[name], usual[name])} == {"0.weight"}


def test_factories_draw_under_the_seed_of_the_run(own: Path) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        torch.rand(3)  # what was drawn before does not matter
        run("train", *WHAT, *QUICK, "--seed", seed, "--lr", "0", "--out", name)
    assert same(own / "a", own / "b")
    assert not same(own / "a", own / "c")


def test_factories_that_print_and_take_any_names(own: Path, capsys: Said) -> None:
    run("train", "--model", "nets:prints", "--data", "sets:no_test", *QUICK)
    assert "a word from the factory" in capsys.readouterr().out
    run("train", "--model", "nets:any_names", "--model.args.width", "5", "--data", "sets:make", *QUICK, "--out", "a")
    assert "0.weight" in bits(own / "a")
    run("train", "--model", "nets:Net", "--model.args.sizes", "[6, 5]", "--data", "sets:make", *QUICK, "--out", "b")
    assert bits(own / "b")["second.weight"].shape == (5, 6)


def test_a_built_in_model_takes_data_that_says_its_classes(own: Path, capsys: Said) -> None:
    run("train", "--data", "sets:make", "--data.args.classes", "2", *QUICK, "--cuts", "5", "--out", "a")
    run("train", "--data", "sets:make", "--data.args.classes", "[no, yes]", *QUICK, "--cuts", "5", "--out", "b")
    assert same(own / "a", own / "b")
    assert "does not say how many classes" in refused(capsys, "train", "--data", "sets:make", *QUICK)
    assert "a model by name is for tensors" in refused(capsys, "train", "--data", "sets:texts", *QUICK)


@pytest.mark.timeout(120)
def test_verify_and_replay_find_it(own: Path, capsys: Said) -> None:
    run("verify", *WHAT, *HOW, "--processes", "1")
    assert capsys.readouterr().out.count("yes") == 2
    served = (
        "--method",
        "softsync",
        "--learners",
        "2",
        "--servers.softsync",
        "1",
        "--batch-size",
        "4",
        "--updates",
        "4",
    )
    run("train", *WHAT, *served, "--out", "s")
    run("replay", "s")
    assert "the same bits" in capsys.readouterr().out


def test_verify_says_where_no_plain_loop_computes_the_same(own: Path, capsys: Said) -> None:
    run("verify", *WHAT, *HOW, "--loss", "nets:summed", "--processes", "1")
    said = capsys.readouterr().out
    assert said.count("yes") == 1
    assert "no plain loop computes this, such as a part of your own, a loss that is a sum and a count" in " ".join(
        said.split()
    )


def test_compare_and_table_find_it(own: Path, capsys: Said) -> None:
    run("compare", *WHAT, *QUICK, "--methods", "pipedream,nets:LAZY", "--seeds", "1", "--out", "c")
    assert (own / "c" / "lazy-0" / "summary.json").exists()
    run("table", "--method", "nets:LAZY", "--updates", "3")
    assert "F2" in capsys.readouterr().out


def test_a_stream_trains_for_as_many_updates_as_are_asked_for(own: Path, capsys: Said) -> None:
    run("train", "--model", "nets:make", "--data", "sets:stream", *QUICK, "--schedule", "cosine", "--out", "s")
    assert json.loads((own / "s" / "summary.json").read_text())["updates"] == 4
    options = ("--model", "nets:make", "--data", "sets:stream", "--stages", "2")
    assert "say how many updates" in refused(capsys, "train", *options, "--schedule", "cosine")
    run("table", "--stages", "3", "--method", "pham-ahn", "--training.targets", "travel")
    said = "targets travel from stage 0 to stage 2, waiting at the start: 5 batches at most, later: 5"
    assert said in capsys.readouterr().out


def test_what_plan_recommends_trains_what_was_planned(own: Path, capsys: Said) -> None:
    mine = (*WHAT, "--model.args.act", "a 'b' 64", "--model.args.width", "12", "--batch-size", "4")
    run("profile", *mine, "--out", "costs.yaml")
    run("plan", *mine, "--costs", "costs.yaml", "--units", "2", "--methods", "nets:LAZY", "--seed", "3")
    command = capsys.readouterr().out.splitlines()[-1].strip()
    assert "--method nets:LAZY" in command
    done = subprocess.run(
        command.replace("stalegrid train", f"{sys.executable} -m stalegrid train") + " --print-config",
        shell=True,
        cwd=own,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = yaml.safe_load(done.stdout)
    made = {"name": "nets:make", "args": {"act": "a 'b' 64", "width": 12}}
    assert said["model"] == {**made, "stagewise": False, "weights": None}
    assert said["data"]["name"] == "sets:make"
    assert (said["training"]["seed"], said["training"]["batch_size"]) == (3, 4)
    assert said["method"]["name"] == "nets:LAZY"


def test_a_callback_ends_a_run_and_is_written_down(own: Path) -> None:
    asked = ("--updates", "20", "--output.evaluate_every", "0.1", "--output.callbacks", "nets:Early")
    run("train", *WHAT, *QUICK, *asked, "--out", "a")
    summary = json.loads((own / "a" / "summary.json").read_text())
    assert summary["stopped"]["by"] == "Early"
    assert summary["updates"] < 20
    assert yaml.safe_load((own / "a" / "config.yaml").read_text())["output"]["callbacks"] == ["nets:Early"]


def test_a_factory_may_return_loaders(own: Path) -> None:
    for data in ("loader", "make"):
        run("train", *WHAT, *QUICK, "--data", f"sets:{data}", "--batch-size", "1", "--out", data)
    assert not same(own / "loader", own / "make")  # which is shuffled


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no-module": (("--model", "netz:make"), "(model: netz:make): ModuleNotFoundError: No module named 'netz'"),
    "no-name": (("--model", "nets:mak"), "(model: nets:mak, missing: mak, module: "),
    "no-path": (("--model", "nets:"), "named by PACKAGE.MODULE:NAME (model: 'nets:')"),
    "another-module": (("--model", "queue:make"), "or rename your module if this is another one"),
    "own-package": (("--model", "stalegrid:make"), "stalegrid/__init__.py); name what it has"),
    "no-function": (("--model", "nets:THREE"), "cannot be called (model: nets:THREE, it is: int)"),
    "raises": (("--model", "nets:raises"), "(model: nets:raises): RuntimeError: out of luck (line "),
    "leaves": (("--model", "nets:leaves"), "(model: nets:leaves): SystemExit: 3 (line "),
    "in-torch": (("--model", "nets:in_torch"), "nets.py)"),
    "returns": (("--model", "nets:number"), "no model (model: nets:number, it returns: int); return a torch.nn.Module"),
    "no-argument": (("--model.args.widht", "3"), "argument: widht); did you mean width? it takes: width=16, depth=1"),
    "missing": (("--model", "nets:Net"), "missing a required argument: 'sizes'; it takes: sizes"),
    "type": (("--model.args.width", "wide"), "the factory fails (model: nets:make): TypeError"),
    "not-own": (("--model", "mlp", "--model.args.width", "3"), "(model: mlp, model.args: width); leave them out"),
    "list": (("--data", "sets:listed"), "it returns: list); return a pair"),
    "three": (("--data", "sets:three"), "it returns: 3 values); return a pair"),
    "nothing": (("--data", "sets:nothing"), "it returns: NoneType); return a pair"),
    "loader": (("--data", "sets:loader"), "(batch_size: 4, in the loader: 1); say the same in both"),
    "test-loader": (("--data", "sets:test_loader", "--test-batch-size", "9"), "(test_batch_size: 9, in the loader: 1)"),
    "tensors": (("--data", "sets:tensors"), "TensorDataset(inputs, targets)"),
    "stream": (("--data", "sets:stream", "--training.targets", "read"), "leave training.targets out"),
    "test-stream": (("--data", "sets:test_stream"), "the test data is a stream (it is: Stream)"),
    "unlabelled": (("--data", "sets:unlabelled"), "targets: list of 1): cross_entropy_loss()"),
    "loss": (("--loss", "nets:number"), "no loss (loss: nets:number, it returns: int); return a function"),
    "optimizer": (("--optimizer", "torch.nn:Identity"), "no optimizer (optimizer: torch.nn:Identity"),
    "optimizer-number": (("--optimizer", "torch.optim:RMSprop", "--lr", "-1"), "Invalid learning rate: -1.0"),
    "decay": (("--optimizer", "torch.optim:SGD", "--optimizer.decay", "matrices"), "named_parameters"),
    "closure": (("--optimizer", "torch.optim:LBFGS"), "its step needs: closure"),
    "momentum": (("--optimizer", "torch.optim:SGD", "--optimizer.momentum", "0"), "--optimizer.args.momentum"),
    "needs-nadam": (("--method", "async-nesterov", "--optimizer", "torch.optim:SGD"), "take torch.optim.NAdam"),
    "schedule": (("--schedule", "torch.nn:ReLU"), "no schedule (schedule: torch.nn:ReLU, it returns: ReLU)"),
    "schedule-missing": (("--schedule", "torch.optim.lr_scheduler:StepLR"), "'step_size'; it takes: optimizer, step_s"),
    "method": (("--method", "nets:THREE"), "this is no method (method: nets:THREE, it is: int)"),
    "view": (("--view", "nets:Net"), "this is no view (view: nets:Net, it is: type)"),
    "mixing": (("--groups", "2", "--mixing", "nets:THREE"), "this is no mixing (mixing: nets:THREE, it is: int)"),
    "corrections": (("--corrections", "nets:THREE"), "this makes no correction (corrections: nets:THREE"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_said_before_anything_starts(name: str, own: Path, capsys: Said) -> None:
    options, expected = BAD[name]
    assert expected in refused(capsys, "train", *WHAT, *QUICK, "--out", "never", *options)


@pytest.mark.parametrize(("function", "mark"), [("raises", "# raised here"), ("in_torch", "# called here")])
def test_the_line_of_the_users_own_code_is_told(function: str, mark: str, own: Path, capsys: Said) -> None:
    lines = (own / "nets.py").read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if mark in line)
    said = refused(capsys, "train", "--model", f"nets:{function}", "--data", "sets:make", *QUICK)
    assert f"(line {number} of {own / 'nets.py'})" in said


BROKEN = {
    "syntax": ("def make(:\n", "SyntaxError: invalid syntax (broken.py, line 1) (line 1 of "),
    "import": ("\nimport no_such_module\n", "No module named 'no_such_module' (line 2 of "),
    "exit": ("import sys\nsys.exit('bye')\n", "SystemExit: bye (line 2 of "),
    "circle": ("from other import thing\n", "partially initialized module 'broken'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_imported_says_why_and_where(name: str, own: Path, capsys: Said) -> None:
    source, expected = BROKEN[name]
    with modules_of(own, broken=source, other="from broken import make\n"):
        said = refused(capsys, "train", "--model", "broken:make", *QUICK)
    assert f"(model: broken:make): {expected}" in said or expected in said
    assert str(own) in said


def test_the_current_folder_is_looked_in_for_the_command_only(own: Path) -> None:
    before = list(sys.path)
    run("train", *WHAT, *QUICK)
    assert sys.path == before


@pytest.mark.timeout(120)
def test_files_that_happen_to_be_called_like_pythons_own_disturb_nobody(own: Path) -> None:
    """Workers import everything anew: theirs would be the first to break."""
    for name in ("random", "queue", "torch", "stalegrid"):
        (own / f"{name}.py").write_text("raise RuntimeError('not this one')\n")
    command = [str(Path(sys.executable).with_name("stalegrid")), "train", *WHAT, *HOW, "--processes", "1"]
    done = subprocess.run(command, cwd=own, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(60)
def test_a_module_that_works_when_it_is_imported_can_be_interrupted(own: Path) -> None:
    (own / "busy.py").write_text("print('at work', flush=True)\nwhile True:\n    pass\n")
    command = [sys.executable, "-m", "stalegrid", "train", "--model", "busy:make", *QUICK]
    with subprocess.Popen(command, cwd=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            os.kill(process.pid, signal.SIGINT)
            end = time.monotonic() + 20
            _, said = process.communicate(timeout=end - time.monotonic())
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted" in said
