from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from benchmarks import far
from benchmarks.measure import Figures
from benchmarks.peers.local import Agreeing
from benchmarks.workloads import BACKWARD, FAR_SIZE, FAR_WIDTHS, FORWARD, SLEPT, WORKLOADS
from stalegrid.cli import main


@pytest.mark.parametrize("workload", FAR_WIDTHS)
def test_stages_run_as_far_ahead_as_the_plan_says(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = tmp_path / "costs.yaml"
    layer = f"forward: {500 * FORWARD}, backward: {500 * BACKWARD}, parameters: {4 * FAR_SIZE**2}"
    activation = 4 * SLEPT * FAR_WIDTHS[workload]
    part = f"{layer}, input: {activation}, output: {activation}"
    costs.write_text(f"batch_size: {SLEPT}\nparts:\n" + "".join(f"- {{name: '{i}', {part}}}\n" for i in range(8)))
    link = f"{far.DELAY},{far.MBIT}"
    assert main(["plan", "--costs", str(costs), "--units", "4", "--devices.link", link]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "pipedream" in line and "1 x 4" in line]
    assert f" {','.join(map(str, far.staleness(far.AHEAD[workload][0])))} " in line


def test_an_ideal_is_a_device_that_never_waits_or_a_link_that_is_full() -> None:
    assert far.ideal("far-sleepers") == pytest.approx(0.060)
    # 1 MiB of activations and 1 MiB of gradients at 12.5 MB/s, 1,448 bytes in 1,514.
    assert far.ideal("far-sleepers-wide") == pytest.approx(2 * 2**20 / 12.5e6 * 1514 / 1448)


def test_a_workload_is_what_it_is_said_to_be() -> None:
    for workload, width in FAR_WIDTHS.items():
        model, samples = WORKLOADS[workload].model(), WORKLOADS[workload].samples(SLEPT)
        assert samples.inputs.shape == (SLEPT, width)
        assert sum(p.numel() for p in model.parameters()) == 8 * FAR_SIZE**2
        assert sum(layer.seconds[0] for layer in model) * SLEPT == pytest.approx(4 * FORWARD)  # type: ignore[misc]


def test_cuts_give_every_device_as_many_layers() -> None:
    assert far._cuts(1) == ["2", "4", "6"]
    assert far._cuts(2) == ["1", "2", "3", "4", "5", "6", "7"]


def test_a_row_holds_pipelines_against_ideals_and_the_best_of_torch_and_the_first_against_all_peers() -> None:
    figures: Figures = {}
    for limit, ideal in (("devices", SLEPT / 0.06), ("links", SLEPT / far.ideal("far-sleepers-wide"))):
        for m in (2, 3, 4):
            figures[f"limited by {limit}: m = {m} (K-1-k), samples/s"] = [0.95 * ideal, 0.8 * ideal]
        for kind in ("GPipe M=4", "1F1B M=8"):
            figures[f"limited by {limit}: torch {kind}, samples/s"] = [0.2 * ideal, (0.1 + len(kind) / 90) * ideal]
    peers = [*far.HOOKS, *(f"local SGD every {every}" for every in far.PERIODS)]
    figures |= {f"limited by devices: {name}, samples/s": [50.0, 100.0] for name in peers}
    row = far._row(figures)
    values = {r.what: r.values for r in row.ratios}
    assert len(row.ratios) == 2 * 4 + len(peers)
    for limit, m in (("devices", 3), ("devices", 4), ("links", 2), ("links", 4)):
        ours = f"limited by {limit}: m = {m} (K-1-k), samples/s"
        assert values[f"{ours} / limited by {limit}: ideal, samples/s"] == pytest.approx((0.95, 0.8))
        assert values[f"{ours} / limited by {limit}: best torch pipeline, samples/s"] == pytest.approx((4.75, 4.0))
    assert [r.goal for r in row.ratios if r.goal] == [">= 0.9"] * 4
    ours = "limited by devices: m = 3 (K-1-k), samples/s"
    (ddp, _) = values[f"{ours} / limited by devices: DDP, samples/s"]
    assert ddp == pytest.approx(0.95 * SLEPT / 0.06 / 50)


@pytest.mark.parametrize(
    ("outer", "expected"),
    # From 0 the mean of two is at 2, then at 4.  Nesterov: 0.7 (2 + 0.9 2) = 2.66; then the mean is 1.34 away,
    # momentum 0.9 2 + 1.34 = 3.14, and 0.7 (1.34 + 0.9 3.14) = 2.9162.
    [("mean", (2.0, 4.0)), ("nesterov", (2.66, 2.66 + 2.9162))],
)
def test_processes_go_on_from_their_mean_or_follow_the_way_to_it(
    outer: str, expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = nn.Linear(1, 1, bias=False)

    def be_at(place: float) -> None:
        with torch.no_grad():
            layer.weight.fill_(place)

    be_at(0.0)
    agreeing, agreed = Agreeing(layer, every=2, outer=outer), 0.0
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for n, (here, there) in enumerate([(1.0, 3.0), (3.0, 5.0)]):
        monkeypatch.setattr(dist, "all_reduce", lambda moved, by=agreed - there: moved.add_(by))
        be_at(here)
        agreeing.updated(2 * n)
        assert layer.weight.item() == here  # it is not time yet
        agreeing.updated(2 * n + 1)
        agreed = layer.weight.item()
        assert agreed == pytest.approx(expected[n])
