import os
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import memory
from benchmarks.measure import Skipped
from stalegrid.partition.cutting import partition


@pytest.mark.thorough
def test_what_waits_for_a_stage_is_what_the_one_below_is_ahead() -> None:
    channels, image = 16 * memory.BATCH, 32 * 32
    activation = 4 * channels * image
    assert memory._waiting() == [0, 2 * activation, 2 * activation, activation]  # the third one is half as large


def test_the_closed_form_is_added_to_what_one_batch_in_flight_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def peaks(view: str, staleness: list[int]) -> list[tuple[int, int]]:
        return [(500_000_000 + 50_000_000 * (m > 0), 1_000_000 * (1 + m)) for m in staleness]

    monkeypatch.setattr(memory, "_peaks", peaks)
    monkeypatch.setattr(memory, "_waiting", lambda: [0, 30_000_000, 20_000_000, 10_000_000])
    found = memory._measure("")
    assert [found[f"one batch in flight, stage {k}, MB"] for k in range(4)] == [500.0] * 4
    for view in memory.VIEWS:
        assert [found[f"{view} stage {k} peak, MB"] for k in range(4)] == [550.0, 550.0, 550.0, 500.0]
        assert [found[f"{view} stage {k} closed form, MB"] for k in range(4)] == [506.0, 534.0, 522.0, 510.0]


def test_a_watcher_in_a_stage_writes_at_every_batch(tmp_path: Path) -> None:
    watched = [tmp_path / "0", tmp_path / "1"]
    model = nn.Sequential(
        memory.Watcher(watched[0]), nn.Linear(4, 4), nn.ReLU(), memory.Watcher(watched[1]), nn.Linear(4, 2)
    )
    for stage, path in zip(partition(model, (torch.zeros(3, 4),), 2, ["3"]).stages(model), watched, strict=True):
        path.unlink()
        stage(torch.zeros(3, 4))
        assert int(path.read_text()) > 0


@pytest.mark.parametrize("before", [None, "other"])
def test_another_allocator_is_for_the_processes_that_are_measured_only(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    if before is not None:
        monkeypatch.setenv("LD_PRELOAD", before)
    seen: list[str | None] = []
    monkeypatch.setattr(memory, "_measure", lambda prefix: seen.append(os.environ["LD_PRELOAD"]) or {})
    memory._preloaded("libjemalloc.so.2")
    assert seen == ["libjemalloc.so.2"]
    assert os.environ.get("LD_PRELOAD") == before


def test_without_linux_the_row_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Path, "exists", lambda path: False)
    with pytest.raises(Skipped, match="needs Linux"):
        memory.run(1)
