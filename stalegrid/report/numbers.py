"""The numbers that a run comes to, each with how it is written.

Does not know: how numbers came about.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stalegrid.observe import TOTAL, VIRTUAL
from stalegrid.report.apart import distances
from stalegrid.report.learning import metrics, newest
from stalegrid.report.series import by_stage, gap_of_stages
from stalegrid.report.staleness import served
from stalegrid.report.told import Told
from stalegrid.report.words import duration, metric, rate


@dataclass(frozen=True)
class Number:
    """A number of a run.

    Args:
        name: as people read it.
        value: itself.
        form: how it is written.
    """

    name: str
    value: float
    form: Callable[[float], str]

    def __str__(self) -> str:
        return self.form(self.value)

    def beyond(self, other: "Number") -> str:
        """Return by how much it is more than another one of its kind."""
        much = self.value - other.value
        # A difference of shares is no share of anything.
        form = self.form(abs(much)).replace("%", " points")
        return "0" if not much else f"{'+' if much > 0 else '-'}{form}"


def headline(run: Told) -> Iterator[Number]:
    """Yield what a run comes to in the first place, of its last report and its last evaluation."""
    told = newest(run)
    forms: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("test_accuracy", "test accuracy", "{:.2%}".format),
        ("test_loss", "test loss", "{:.4g}".format),
        *((name, metric(name), "{:.4g}".format) for name in metrics(run)),
        ("loss", "training loss", "{:.4g}".format),
        ("update", "updates", "{:,}".format),
        ("seconds", "time", duration),
        (VIRTUAL, "virtual time", duration),
        ("samples_per_second", "samples/s", rate),
    )
    yield from (Number(name, told[key], form) for key, name, form in forms if told.get(key) is not None)


def further(run: Told) -> Iterator[Number]:
    """Yield what else two runs can be held against each other by."""
    yield from _stale(run)
    gaps = [found[-1][1] for found in gap_of_stages(run.train).values()]
    if run.team is None and gaps:
        yield Number("gap at the end, mean over stages", sum(gaps) / len(gaps), "{:.3g}".format)
    if apart := distances(run):
        yield Number("consensus distance at the end", apart[-1][1], "{:.3g}".format)
    if sent := (run.summary.get("bytes_per_update") or {}).get(TOTAL):
        yield Number("bytes sent an update", sent, "{:,.0f}".format)


def _stale(run: Told) -> Iterator[Number]:
    if run.team is None:
        of_stages = [summed.record() for summed in by_stage(run.train).values()]
        worst = max(of_stages, key=lambda stage: float(stage["mean"]), default=None)
    else:
        worst = served(run, run.team).get("staleness_of_all")
    if worst is not None:
        yield Number("mean staleness", worst["mean"], "{:.3g}".format)
        yield Number("largest staleness", worst["max"], "{:,}".format)
