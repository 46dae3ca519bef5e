"""What docs/planning.md shows is run as it stands."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from stalegrid.cli import main
from stalegrid.stability import Late, Momentum, Recursion
from stalegrid.timing.costs import CostTable

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "planning.md").read_text()


def block(language: str, number: int = 0) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(found) == {"yaml": 2, "python": 1}[language]
    return str(found[number])


def blocks(number: int = 0) -> str:
    """Return a table of the page with its one block eight times."""
    head, part = block("yaml", number).split("parts:\n")
    return head + "parts:\n" + "".join(part.replace("block0", f"block{i}") for i in range(8))


def test_the_example_measures_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    data = TensorDataset(torch.zeros(64, 4), torch.zeros(64, dtype=torch.int64))
    exec(block("python"), {"model": model, "data": data})
    assert len(CostTable.read(tmp_path / "costs.yaml").parts) == 2


@pytest.mark.thorough
def test_the_plans_are_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "blocks.yaml").write_text(blocks())
    (tmp_path / "devices.yaml").write_text(blocks(1))
    shown = re.findall(r"\$ stalegrid plan --costs (\w+.yaml)(.*?)\n(.*?)```", PAGE, flags=re.DOTALL)
    assert [table for table, _, _ in shown] == ["blocks.yaml"] * 2 + ["devices.yaml"]
    for table, options, output in shown:
        assert main(["plan", "--costs", str(tmp_path / table), *options.split()]) == 0
        printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        for line in output.splitlines():
            if line.strip() and "..." not in line:
                assert line.rstrip() in printed


def limit(delay: int, momentum: float = 0) -> float:
    return Recursion((Late(delay, 1.0),), steps=Momentum(momentum=momentum)).largest_rate()


def test_rates_that_late_gradients_bear_are_those_of_the_recursion() -> None:
    shares = ", ".join(f"{limit(delay):.2g}/a" for delay in (0, 1, 2, 4, 6))
    assert f": {shares} at m = 0, 1, 2, 4, 6." in PAGE
    assert f"takes a factor of {limit(0, 0.9) / limit(1, 0.9):.0f}." in PAGE
    shares = ", ".join(f"{limit(delay):.3g}" for delay in (1, 2, 3, 4))
    assert f"then {shares} for m = 1 to 4." in " ".join((DOCS / "theory.md").read_text().split())
