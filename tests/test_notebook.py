"""Cells of a notebook: what they show while they train, and an interrupt of the kernel."""

import asyncio
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TRAIN = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid

x = torch.randn(64, 4)
data = TensorDataset(x, (x.sum(1) > 0).long())
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def train(**options):
    return stalegrid.train(
        model, data, test=data, loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
        stages=2, groups=1, batch_size=4, device="cpu", **options)
"""


class Reader(NotebookClient):
    """Interrupts the kernel, once, when it reads a text in what a cell shows.

    Attributes:
        texts: of all that a cell has shown, as it was sent.
    """

    def __init__(self, notebook: Any, text: str | None = None, **options: Any) -> None:
        super().__init__(notebook, timeout=120, kernel_name="python3", **options)
        self.text = text
        self.texts: list[str] = []

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "stream":
            self.texts.append(msg["content"]["text"])
            if self.text is not None and self.text in "".join(self.texts):
                self.text = None
                self._task = asyncio.ensure_future(self.km.interrupt_kernel())  # as the button does
        return super().process_message(msg, cell, cell_index)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run cells in a kernel of their own; what they have shown, as it was sent and as it is read in the end."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))

    def run(*cells: str, interrupt_at: str | None = None) -> tuple[str, str]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (TRAIN, *cells)])
        monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it kernels take nothing that processes print
        reader = Reader(notebook, interrupt_at, coalesce_streams=True)
        reader.execute()
        outputs = [output for cell in notebook.cells for output in cell.outputs]
        return "".join(reader.texts), "".join(one.text for one in outputs if one.output_type == "stream")

    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("engine", [pytest.param("simulator", marks=pytest.mark.thorough), "processes"])
def test_a_cell_shows_a_live_line_without_codes_of_a_terminal(engine: str, run: Any) -> None:
    sent, read = run(f"result = train(engine={engine!r}, updates=48)", "print(result.summary['version'])")
    assert "\x1b" not in sent
    assert "\rupdate " in sent.replace("\r\n", "\n"), "no line was written over"
    announced, *evaluated, last, version = read.splitlines()
    assert f"on {engine}" in announced
    assert [line.split("  ")[1] for line in evaluated] == ["version 16", "version 32", "version 48"]
    assert last.startswith("update 48/48 ")
    assert version == "48"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("engine", [pytest.param("simulator", marks=pytest.mark.thorough), "processes"])
def test_an_interrupt_of_the_kernel_returns_the_model_that_was_measured_last(engine: str, run: Any) -> None:
    sent, read = run(
        f"result = train(engine={engine!r}, updates=10**6)",
        "moved = any((a != b).any() for a, b in zip(result.model.parameters(), model.parameters()))",
        "print(result.summary['version'], moved)",
        interrupt_at="version 32",
    )
    version, moved = read.splitlines()[-1].split(" ")
    assert int(version) >= 32
    assert moved == "True"
    assert "interrupted: the result is the model as it was measured last" in read
    assert "\x1b" not in sent
