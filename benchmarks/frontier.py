"""What staleness buys: predicted and measured time per batch of eight emulated devices, steady and with jitter.

The staleness of stage k is ``ceil(c (K-1-k))``; durations are log-normal about their medians.
"""

from functools import partial

from benchmarks.measure import Figures, Ratio, Row, interleave, ratio
from stalegrid import DeviceSettings, GridSettings, MethodSettings, MixingSettings, Settings, TrainingSettings
from stalegrid.planner.planning import Candidate, Question, candidates
from stalegrid.studies.rehearsal import emulate
from stalegrid.timing.costs import Cost, CostTable
from stalegrid.timing.tune import scaled

STAGES, UPDATES = 8, 120
TABLE = CostTable(32, tuple(Cost(forward=20, backward=40, name=str(k)) for k in range(STAGES)))
SCALES = (0.5, 1, 1.5, 2, 3)


def run(turns: int) -> Row:
    """Hold the estimate of every point of the frontier against processes that sleep."""
    figures: Figures = {}
    ratios: list[Ratio] = []
    for sigma in (0.0, 0.5):
        for scale in SCALES:
            candidate = _candidate(sigma, scale)
            predicted, measured = (f"c={scale:g} sigma={sigma:g} {what}, ms" for what in ("predicted", "measured"))
            figures |= interleave({measured: partial(emulate, candidate, TABLE, UPDATES)}, turns)
            figures[predicted] = [candidate.estimate.batch] * turns
            ratios.append(ratio(figures, predicted, measured, at_least=0.9, at_most=1.1))
    return Row(figures, ratios)


def _candidate(sigma: float, scale: float) -> Candidate:
    settings = Settings(
        method=MethodSettings(staleness=scaled(STAGES, scale)),
        grid=GridSettings(stages=STAGES),
        mixing=MixingSettings(kind="none"),
        training=TrainingSettings(batch_size=TABLE.batch_size),
        devices=DeviceSettings(jitter=sigma),
    )
    (found,) = candidates(Question(TABLE, STAGES, ("pipedream",)), settings)
    return found
