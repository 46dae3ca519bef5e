"""Whether groups are together or apart, as the page says it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stalegrid.report.apart import apart_verdict
from stalegrid.report.models import norm_of
from stalegrid.report.told import read_told
from tests.report.cases import CONFIG, evaluated, folder_of, said, trained

TWO: dict[str, Any] = CONFIG | {"grid": {"groups": 2, "stages": 2}}
ALONE = ("--groups", "3", "--stages", "1", "--split", "shards=2", "--lr", "0.2", "--schedule", "constant")


def test_groups_that_come_together(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "--groups", "2", "--stages", "1", "--epochs", "2")
    (line,) = said(apart_verdict, run)
    assert line.startswith(f"well: Groups came together: {run.test[-1]['consensus_distance']:.3g} from their mean ")


def test_groups_with_unlike_data_that_hardly_meet(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *ALONE, "--mixing.period", "9", "--updates", "17", "--output.js-distance", "true")
    (line,) = said(apart_verdict, run)
    assert line.startswith("wrong: Groups are apart: ")
    assert f"; Jensen-Shannon distance {run.test[-1]['js_distance']:.3g} of at most 1.05." in line


def test_the_norm_is_that_of_the_mean_model(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "--groups", "2", "--stages", "1", "--updates", "2")
    assert run.norm == norm_of(tmp_path / "run") > 0  # type: ignore[operator]
    save_file({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]]), "n": torch.tensor([7])}, tmp_path / "run" / "m")
    (tmp_path / "run" / "m").replace(tmp_path / "run" / "model.safetensors")
    assert norm_of(tmp_path / "run") == 5.0


@pytest.mark.parametrize(
    ("distances", "js", "expected"),
    [
        ([2.0, 0.005], None, "well: Groups came together: 0.005 from their mean at the end, 0.5% of its norm, and 2 "),
        ([0.02, 0.05], None, "wrong: Groups are apart: 0.05 from their mean at the end, 5% of its norm, and 0.05 "),
        ([0.05], None, "open: Groups are neither together nor far apart: 0.05 "),
        ([0.2, 0.11], None, "wrong: Groups are apart: 0.11 "),
        ([0.2, 0.05], None, "well: Groups came together: 0.05 "),
        ([0.08, 0.05], None, "open: Groups are neither together nor far apart: 0.05 "),
        ([2.0, 0.005], 0.3, "wrong: Groups are apart: 0.005 "),
        ([2.0, 0.005], 0.1, "well: Groups came together: 0.005 "),
    ],
)
def test_norm_and_trend_decide(tmp_path: Path, distances: list[float], js: float | None, expected: str) -> None:
    more = {} if js is None else {"js_distance": js}
    metrics = [evaluated(i, float(i), 0.5, consensus_distance=d, **more) for i, d in enumerate(distances, start=1)]
    folder = folder_of(tmp_path, TWO, metrics)
    save_file({"a": torch.tensor([0.6, 0.8])}, folder / "model.safetensors")
    (line,) = said(apart_verdict, read_told(folder))
    assert line.startswith(expected)


def test_one_group_and_a_run_without_a_model_say_nothing(tmp_path: Path) -> None:
    assert said(apart_verdict, read_told(folder_of(tmp_path, TWO))) == []
    assert said(apart_verdict, read_told(folder_of(tmp_path, CONFIG))) == []
