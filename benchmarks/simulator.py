"""What the simulator costs: S x K units against a plain PyTorch loop over the same samples, in this process."""

from functools import partial

from benchmarks.measure import THREADS, Figures, Ratio, Row, interleave, ratio
from benchmarks.peers import loop
from benchmarks.runs import seconds_per_update
from stalegrid.engines.machine import computing

UPDATES = 20
SIZES = {(1, 4): 128, (4, 4): 32}
"""Batch of a group, by S and K."""

GOALS = {"stashed": 1.10, "current": 1.10, "recomputed": 1.45}


def run(turns: int) -> Row:
    """Measure the time of an update with each view."""
    figures: Figures = {}
    ratios: list[Ratio] = []
    with computing(THREADS):
        for (groups, stages), batch in SIZES.items():
            plain = f"plain loop, {groups} x batch {batch}, s/update"
            views = {view: f"simulator {groups} x {stages} {view}, s/update" for view in GOALS}
            measured = {name: partial(_simulator, groups, stages, batch, view) for view, name in views.items()}
            alone = partial(loop.measure, "resnet20", batch, UPDATES, models=groups)
            figures |= interleave({plain: alone, **measured}, turns)
            ratios += [ratio(figures, name, plain, at_most=GOALS[view]) for view, name in views.items()]
    return Row(figures, ratios)


def _simulator(groups: int, stages: int, batch: int, view: str) -> float:
    return seconds_per_update(
        "resnet20",
        UPDATES,
        groups=groups,
        stages=stages,
        cuts=["4", "6", "8"],
        view=view,
        engine="simulator",
        batch_size=batch,
    )
