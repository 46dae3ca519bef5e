"""What is printed is printed as it is, wherever standard output leads."""

import builtins
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stalegrid.errors import OutputError
from stalegrid.observe.stream import make_console, tell

NAMES = "[bold]x[/red] :smile: [/] ü"


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    tell(NAMES)
    make_console().print(NAMES)
    assert capsys.readouterr().out == f"{NAMES}\n{NAMES}\n"


def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    tell("runs/größe")
    assert raw.getvalue() == b"runs/gr\\xf6\\xdfe\n"


def test_where_there_is_no_output_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    tell("a")
    make_console().print("b")


def test_an_output_that_takes_nothing_is_told_once_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(OutputError, match=r"cannot be written \(stdout\)"):
        make_console().print("a")
    tell("a")
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr(sys, "stderr", closed)
    tell("a")


def test_an_output_that_takes_nothing_costs_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(OutputError):
            make_console().print("a")
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("where", ["> /dev/full", "| true"])
def test_a_process_whose_output_takes_nothing_goes_on_and_ends_well(tmp_path: Path, where: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "from stalegrid.observe.stream import tell\n"
        "sys.stdin.read()\n"  # until the reader is gone
        "for _ in range(3):\n    tell('a')\n"
        "open(sys.argv[1], 'w').close()\n"
    )
    command = f"(sleep 0.2 | {sys.executable} {script} {tmp_path}/done; echo $? > {tmp_path}/status) {where}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert found.stderr.count("cannot be written") == 1
    assert found.stderr.count("\n") == 1
    assert (tmp_path / "done").exists()
    assert (tmp_path / "status").read_text() == "0\n"


def test_what_is_no_terminal_gets_no_codes_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.setenv(name, "1")
    console = make_console()
    assert not console.is_terminal
    assert not console.is_jupyter
    console.show_cursor()
    console.print("plain", style="bold red")
    assert capsys.readouterr().out == "plain\n"


def test_a_notebook_gets_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class ZMQInteractiveShell:
        """What rich takes a notebook by."""

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    tell("a line")
    assert capsys.readouterr().out == "a line\n"


@pytest.mark.parametrize("engine", ["processes", pytest.param("simulator", marks=pytest.mark.thorough)])
def test_a_run_on_a_pipe_of_a_build_server_shows_lines(engine: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stalegrid", "train", "--updates", "6", "--engine", engine]
    environment = {**os.environ, "FORCE_COLOR": "1", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert made.returncode == 0, made.stderr
    assert "update 6/6" in made.stdout
    assert "\x1b" not in made.stdout
