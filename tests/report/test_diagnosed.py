"""What was measured of the theory is drawn beside what it is held against."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from stalegrid.errors import DataError
from stalegrid.observe import Record
from stalegrid.report.report import write_report
from tests.report.test_report import METRICS, folder_of


def diagnosed(version: int, **changes: object) -> Record:
    stages = [{"error": 0.25 * k, "bound": None if k else 1.5, "rate_limit": None} for k in range(2)]
    noise = {"measured": 2.0, "predicted": 1.75, "bound": 3.5, "why": ""}
    record: Record = {"kind": "diagnosis", "version": version, "epoch": version / 5, "rate": 0.1, "rate_limit": 0.3}
    record |= {"gradient_square": 4.0, "gradient_square_average": 5.0, "noise": noise, "consensus": None}
    return record | {"stages": stages, "seconds": 1.0} | changes


def page(folder: Path, *records: Record) -> str:
    return write_report(folder_of(folder, metrics=[*METRICS, *records])).read_text()


def test_each_quantity_is_a_line_beside_its_bound(tmp_path: Path) -> None:
    shown = page(tmp_path / "run", diagnosed(5), diagnosed(10))
    assert "<h2>Diagnosis</h2>" in shown
    for title in ("Squared gradient of the mean model", "Noise of a gradient", "Rate and its limits"):
        assert f"<figcaption>{title}</figcaption>" in shown
    assert "<figcaption>Staleness error of stage 1</figcaption>" in shown
    assert "Consensus distance</figcaption>" not in shown.split("<h2>Diagnosis</h2>")[1]
    apart = {"distance": 0.5, "after_update": 0.75, "bound": None, "every_update": False, "why": "not derived"}
    more = page(tmp_path / "more", diagnosed(5, consensus=apart))
    assert "<figcaption>Consensus distance</figcaption>" in more


def test_a_run_that_was_not_diagnosed_has_no_such_part(tmp_path: Path) -> None:
    assert "Diagnosis" not in page(tmp_path / "run")


def test_a_damaged_diagnosis_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 5"):
        page(tmp_path / "run", diagnosed(5, stages=[{"error": "much"}]))
