"""Runs that leave on a signal, and what goes on with them or refuses to, from the command line."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stalegrid.cli import main

# A cut by measured time may be another one the next time.
QUICK = ("train", "--stages", "2", "--groups", "2", "--cuts", "5", "--checkpoint", "5", "--output.log_every", "5")
RUN = (*QUICK, "--updates", "20", "--engine", "simulator")
PATIENCE = 120.0
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 updates that has come to its end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*RUN, "--checkpoint.keep", "9", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def left(whole: Path, tmp_path: Path) -> Path:
    """The same run as if it had been killed before its end."""
    folder = tmp_path / "left"
    shutil.copytree(whole, folder)
    (folder / "checkpoints" / "ended").unlink()
    return folder


def said_line(capsys: Said, *arguments: object) -> str:
    """Return the one line with which a command is refused."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def same(one: Path, other: Path) -> bool:
    name = "model.safetensors"
    return (one / name).read_bytes() == (other / name).read_bytes()


def test_a_killed_run_goes_on_to_the_bits_of_the_whole_one(left: Path, whole: Path) -> None:
    (left / "model.safetensors").unlink()
    incomplete = left / "checkpoints" / "000000018"
    incomplete.mkdir()
    (incomplete / "observer.json").write_text("{}")
    assert main(["resume", str(left), "--engine", "processes", "--processes", "2"]) == 0
    assert same(left, whole)
    assert not incomplete.exists()
    assert (left / "checkpoints" / "ended").read_text() == "20\n"


def test_a_run_of_servers_and_learners_goes_on_too(tmp_path: Path) -> None:
    asked = ("--method", "softsync", "--learners", "2", "--updates", "12", "--checkpoint", "5", "--engine", "simulator")
    assert main(["train", *asked, "--out", str(tmp_path / "whole")]) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "left")
    (tmp_path / "left" / "checkpoints" / "ended").unlink()
    (tmp_path / "left" / "model.safetensors").unlink()
    assert main(["resume", str(tmp_path / "left")]) == 0
    assert same(tmp_path / "left", tmp_path / "whole")


def test_one_goes_back_to_a_checkpoint_and_what_lies_behind_it_is_written_anew(left: Path, whole: Path) -> None:
    assert main(["resume", str(left / "checkpoints" / "000000005"), "--checkpoint.keep", "1"]) == 0
    assert same(left, whole)
    assert {path.name for path in (left / "checkpoints").iterdir()} == {"000000015", "ended", "lock"}


def test_a_run_that_has_ended_says_so(whole: Path, capsys: Said) -> None:
    said = said_line(capsys, "resume", whole)
    assert f"has come to its end (folder: {whole}, version: 20)" in said
    assert "has come to its end" in said_line(capsys, *RUN, "--resume", "auto", "--out", whole)


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: Said) -> None:
    file, empty = tmp_path / "file", tmp_path / "empty"
    file.touch()
    empty.mkdir()
    assert f"this is a file (path: {file})" in said_line(capsys, "resume", file)
    assert f"no such folder (path: {tmp_path / 'none'})" in said_line(capsys, "resume", tmp_path / "none")
    assert "not the folder of a run" in said_line(capsys, "resume", empty)
    assert "no whole checkpoint" in said_line(capsys, *RUN, "--resume", empty)


OTHERS = {
    "stages": (["--stages", "3"], "(grid.stages: 3, then: 2, checkpoint: "),
    "updates": (["--updates", "40"], "(training.updates: 40, then: 20, checkpoint: "),
    "model": (["--model", "convnet"], "(model.name: convnet, then: mlp, checkpoint: "),
    "seed": (["--seed", "4"], "(training.seed: 4, then: 0, checkpoint: "),
    "rate": (["--lr", "0.2"], "other optimizers"),
    "log": (["--output.log_every", "4"], "(output.log_every: 4, then: 5, checkpoint: "),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused(name: str, left: Path, capsys: Said) -> None:
    asked, why = OTHERS[name]
    before = {path: path.stat().st_mtime_ns for path in left.rglob("*") if path.is_file()}
    said = said_line(capsys, *RUN, *asked, "--resume", left)
    assert why in said
    assert before == {path: path.stat().st_mtime_ns for path in left.rglob("*") if path.is_file()}


def test_another_device_or_number_of_threads_is_told(left: Path, capsys: Said) -> None:
    assert main(["resume", str(left), "--engine.threads", "2"]) == 0
    assert "other numbers of threads than before (threads: 2, then: 1)" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["group-0-stage-1.safetensors", "observer.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_damaged_newest_checkpoint_is_named_and_so_is_an_older_whole_one(
    file: str, harm: str, left: Path, capsys: Said
) -> None:
    checkpoints = left / "checkpoints"
    damaged = checkpoints / "000000015" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "flipped":
        damaged.write_bytes(content)
    elif harm == "cut":
        damaged.write_bytes(content[: len(content) // 2])
    else:
        damaged.unlink()
    named = checkpoints / "000000015"
    said = said_line(capsys, "resume", named)
    assert str(damaged) in said
    assert f"go on from that: {checkpoints / '000000010'}" in said
    if (file, harm) != ("manifest.json", "gone"):  # which is one that was not finished, as after a kill
        assert said_line(capsys, "resume", left) == said
    assert main([*RUN, "--resume", "auto", "--out", str(left)]) == 0


def test_a_checkpoint_of_a_newer_schema_is_left_alone(left: Path, capsys: Said) -> None:
    manifest = left / "checkpoints" / "000000015" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 9, "stalegrid": "9.0"}))
    for command in (("resume", left), (*RUN, "--resume", "auto", "--out", left)):
        said = said_line(capsys, *command)
        assert f"written by a newer stalegrid (file: {manifest}, schema: 9" in said
    assert manifest.exists()


def test_a_run_that_still_goes_on_is_not_taken(left: Path, capsys: Said) -> None:
    with (left / "checkpoints" / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        for command in (("resume", left), (*RUN, "--resume", "auto", "--out", left)):
            assert f"the run still goes on, or a process of it has not ended yet (folder: {left}" in said_line(
                capsys, *command
            )
    assert main(["resume", str(left)]) == 0


def test_auto_begins_anew_where_the_same_run_came_to_no_checkpoint(left: Path, whole: Path, capsys: Said) -> None:
    for version in (5, 10, 15):
        (left / "checkpoints" / f"{version:09d}" / "manifest.json").unlink()
    (left / "notes.txt").write_text("mine")
    said = said_line(capsys, *RUN, "--seed", "4", "--resume", "auto", "--out", left)
    assert f"that of another run (training.seed: 4, then: 0, out: {left})" in said
    assert main([*RUN, "--resume", "auto", "--out", str(left)]) == 0
    assert same(left, whole)
    assert (left / "notes.txt").read_text() == "mine"
    assert len((left / "metrics.jsonl").read_text().splitlines()) == len(
        (whole / "metrics.jsonl").read_text().splitlines()
    )


def test_auto_takes_an_empty_folder_and_no_other(tmp_path: Path, whole: Path, capsys: Said) -> None:
    other, empty, new = tmp_path / "other", tmp_path / "empty", tmp_path / "new"
    other.mkdir()
    (other / "metrics.jsonl").write_text("{}\n")
    assert "is not that of a run with checkpoints" in said_line(capsys, *RUN, "--resume", "auto", "--out", other)
    assert (other / "metrics.jsonl").read_text() == "{}\n"
    empty.mkdir()
    for folder in (empty, new):
        assert main([*RUN, "--resume", "auto", "--out", str(folder)]) == 0
        assert same(folder, whole)
    assert "name that (out)" in said_line(capsys, *RUN, "--resume", "auto")
    assert "say when (checkpoint)" in said_line(
        capsys, "train", "--updates", "2", "--resume", "auto", "--out", tmp_path / "never"
    )


def test_a_run_of_a_script_is_sent_back_to_the_script(left: Path, capsys: Said) -> None:
    lines = (left / "config.yaml").read_text().splitlines(keepends=True)
    start = lines.index("model:\n")
    (left / "config.yaml").write_text("".join(lines[:start]))
    assert f"run that script again, with train(..., resume='{left}')" in said_line(capsys, "resume", left)


class Started:
    """A long run as a user starts it, in a session of its own."""

    def __init__(self, folder: Path, engine: str, *more: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "stalegrid", *QUICK, "--updates", "1000000", "--engine", engine]
        self.process = subprocess.Popen(
            [*command, "--out", str(folder), *more], stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_for_checkpoint(self) -> None:
        end = time.monotonic() + PATIENCE
        while not list(self.folder.glob("checkpoints/*/manifest.json")):
            assert time.monotonic() < end
            assert self.process.poll() is None
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Started]]:
    made: list[Started] = []
    yield made
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


@pytest.mark.parametrize(
    ("engine", "number", "group"),
    [
        ("processes", signal.SIGINT, True),  # as a terminal does
        pytest.param("processes", signal.SIGTERM, False, marks=pytest.mark.thorough),  # as a scheduler does
        pytest.param("simulator", signal.SIGTERM, True, marks=pytest.mark.thorough),
    ],
)
def test_a_run_leaves_on_a_signal_with_the_command_that_goes_on(
    engine: str, number: signal.Signals, group: bool, tmp_path: Path, started: list[Started]
) -> None:
    started.append(run := Started(tmp_path / "run", engine))
    run.wait_for_checkpoint()
    (os.killpg if group else os.kill)(run.process.pid, number)
    code, said = run.end()
    assert code == os.EX_TEMPFAIL, said
    assert f"stalegrid resume {run.folder}" in said
    assert not (run.folder / "checkpoints" / "ended").exists()
    with (run.folder / "checkpoints" / "lock").open("a") as free:
        fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.thorough
def test_a_killed_starter_leaves_a_run_that_goes_on(tmp_path: Path, started: list[Started]) -> None:
    started.append(run := Started(tmp_path / "run", "processes"))
    run.wait_for_checkpoint()
    run.process.kill()
    run.end()
    end = time.monotonic() + PATIENCE
    with (run.folder / "checkpoints" / "lock").open("a") as free:
        while True:  # its workers end by themselves
            try:
                fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < end
                time.sleep(0.05)
    again = subprocess.Popen(
        [sys.executable, "-m", "stalegrid", "resume", str(run.folder)], stderr=subprocess.PIPE, text=True
    )
    before = (run.folder / "metrics.jsonl").stat().st_size
    while (run.folder / "metrics.jsonl").stat().st_size <= before + 10_000:
        assert time.monotonic() < end
        assert again.poll() is None
        time.sleep(0.05)
    again.terminate()
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == os.EX_TEMPFAIL, said
