"""Records of whole runs in Weights & Biases and in MLflow, the packages themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

import stalegrid
from tests.test_metrics import lines
from tests.test_stopped import train


class Lines:
    """A logger of the user's own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, settings: dict[str, Any]) -> None:
        self.path.write_text(json.dumps({"settings": settings}) + "\n")

    def log(self, record: dict[str, Any]) -> None:
        self._write(record)

    def finish(self, summary: dict[str, Any]) -> None:
        self._write({"summary": summary})

    def _write(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_logger_of_ones_own_has_settings_all_lines_and_the_summary(engine: str, tmp_path: Path) -> None:
    found = train(tmp_path / "run", loggers=[Lines(tmp_path / "log")], engine=engine, updates=6)
    first, *records, last = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert first["settings"]["training"]["updates"] == 6
    assert records == [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert last["summary"] == found.summary


def test_what_is_trained_does_not_depend_on_loggers(tmp_path: Path) -> None:
    train(tmp_path / "a", updates=6)
    train(tmp_path / "b", loggers=[Lines(tmp_path / "log")], updates=6)
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_weights_and_biases_offline(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    train(tmp_path / "run", loggers=["wandb"], engine=engine, updates=6)
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (content,) = folder.glob("*.wandb")
    raw = content.read_bytes()
    for name in (b"train/loss", b"test/test_loss", b"staleness/(0,1)", b"batch_size"):
        assert name in raw


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_mlflow_in_files(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = train(tmp_path / "run", loggers=["mlflow"], engine=engine, updates=6)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient((tmp_path / "run" / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("stalegrid").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.batch_size"] == "4"
    assert run.data.tags["version"] == "6"
    assert run.data.metrics["test/test_loss"] == found.summary["test_loss"]
    told = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert told == [(line["update"], line["loss"]) for line in lines(tmp_path / "run") if line["kind"] == "train"]
    assert run.data.metrics["staleness/0-1"] == 0.0


def test_loggers_are_shipped_as_objects_too() -> None:
    assert isinstance(stalegrid.WeightsAndBiases(project="mine"), stalegrid.Logger)
    assert isinstance(stalegrid.MLflow(uri="file:/tmp/none"), stalegrid.Logger)
