"""The example that docs/observing.md shows is run as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "observing.md").read_text()


def test_the_example_is_stopped_and_keeps_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    said: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example.py", "exec"), said)
    summary = said["result"].summary
    assert summary["stopped"]["by"] in ("Enough", "EarlyStopping")
    assert summary["version"] < 40 * 30
    assert summary["test_margin"] > 0
    names = {path.name for path in (tmp_path / "runs" / "observed").iterdir()}
    assert {"model-best.safetensors", "model-ema.safetensors", "metrics.jsonl"} <= names
