"""What docs/exchanges.md says of bytes, memory and time is what commands print."""

import re
from pathlib import Path

import pytest

from stalegrid.cli import main
from stalegrid.consensus import MixingSettings, find_mixing, turns_of
from stalegrid.methods import find_grid
from stalegrid.plans import Exchanged, vectors_sent

PAGE = (Path(__file__).parents[1] / "docs" / "exchanges.md").read_text()
COMPUTED, MEASURED = PAGE.split("## What talking less")
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in COMPUTED.splitlines() if line.startswith("|")]
SENT = {row[1].strip("`"): row for row in ROWS if len(row) == 8 and row[1].startswith("`")}
TIMES = {row[0].strip("`"): row[1:] for row in ROWS if len(row) == 4 and row[0].startswith("`")}
LINKS = ("0.1,10000", "1,1000", "20,100")


def test_there_is_a_row_for_every_method_of_several_groups() -> None:
    assert SENT.keys() == TIMES.keys()
    assert len(SENT) == 11


@pytest.mark.parametrize("name", SENT)
def test_vectors_are_those_of_the_closed_form(name: str) -> None:
    method = find_grid(name)
    mixing = find_mixing(method.mixing)
    exchanged = Exchanged(mixing, turns_of(MixingSettings(), 4, 1, usual=method.turns, mixing=mixing))
    assert SENT[name][2] == f"{vectors_sent(exchanged):.4g}"
    assert SENT[name][4] == f"{exchanged.vectors_kept:.4g}"


def test_figures_that_were_measured_are_those_of_the_results() -> None:
    results = (Path(__file__).parents[1] / "docs" / "results.md").read_text()
    figures = re.findall(r"[\d.]+ ± [\d.]+", MEASURED)
    assert len(figures) == 13
    assert [figure for figure in figures if figure not in results] == []


def test_times_are_what_the_plan_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (costs,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "costs.yaml").write_text(costs)
    (command,) = re.findall(r"\$ stalegrid (plan .*)", PAGE)
    given = command.replace("costs.yaml", str(tmp_path / "costs.yaml")).replace("METHODS", ",".join(TIMES))
    for column, link in enumerate(LINKS):
        assert main(given.replace("LATENCY,MBIT", link).split()) == 0
        printed = [line.replace("*", " ").split() for line in capsys.readouterr().out.splitlines()]
        rates = {words[0]: words[6] for words in printed if words and words[0] in TIMES}
        assert rates == {name: row[column] for name, row in TIMES.items()}
