"""What a run has learned: loss, accuracy and metrics of the user's, and whether the loss fell.

Does not know: how the run went on otherwise.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean

from stalegrid.observe import PREFIX, VIRTUAL, Record
from stalegrid.report.figures import Curve, curves
from stalegrid.report.marks import Mark, Verdict
from stalegrid.report.page import figures, section
from stalegrid.report.series import EPOCHS, points
from stalegrid.report.told import Told
from stalegrid.report.words import metric

CLOCK = (VIRTUAL, "virtual seconds")

SHARE = 0.1
"""Of all reports, that the begin and the end of a run are the means of."""


def learning_section(run: Told) -> str:
    """Return the part of a page."""
    return section("Learning", [*figures(_curves(run, *EPOCHS)), *figures(_curves(run, *CLOCK))])


def _curves(run: Told, key: str, label: str) -> Iterator[tuple[str, str]]:
    for name, percent, lines in (
        ("Loss", False, (("training", run.train, "loss"), ("test", run.test, "test_loss"))),
        ("Accuracy", True, (("training", run.train, "train_accuracy"), ("test", run.test, "test_accuracy"))),
        *((metric(name).capitalize(), False, (("test", run.test, name),)) for name in metrics(run)),
    ):
        drawn = [Curve(line, found) for line, records, value in lines if (found := points(records, key, value))]
        if drawn:
            title = f"{name} over {label}"
            yield title, curves(title, drawn, label, name.lower(), percent)


def metrics(run: Told) -> list[str]:
    """Return what metrics of the user's are called in records."""
    usual = ("test_loss", "test_accuracy")
    return list(dict.fromkeys(n for record in run.test for n in record if n.startswith(PREFIX) and n not in usual))


def learning_verdict(run: Told) -> Iterator[Verdict]:
    """Say whether the training loss fell, and whether it and the test loss were numbers."""
    for name, records, key in (("training", run.train, "loss"), ("test", run.test, "test_loss")):
        if (first := next((r for r in records if key in r and r[key] is None), None)) is not None:
            yield Verdict(Mark.WRONG, f"The {name} loss is no number any more at epoch {first['epoch']:.3g}.")
    reported = [(record["update"], record["loss"]) for record in run.train if record.get("loss") is not None]
    if len(reported) > 1:
        yield _fell(reported)


def _fell(reported: Sequence[tuple[int, float]]) -> Verdict:
    part = max(1, round(SHARE * len(reported)))
    begin, end = (fmean(loss for _, loss in some) for some in (reported[:part], reported[-part:]))
    at, least = min(reported, key=lambda one: one[1])
    if end > begin:
        return Verdict(Mark.WRONG, f"The training loss rose from {begin:.4g} to {end:.4g}.")
    if end - least > begin - end:
        numbers = f"from {begin:.4g} to {least:.4g} at update {at}, and {end:.4g} at the end"
        return Verdict(Mark.WRONG, f"The training loss gave back most of what it had won: {numbers}.")
    return Verdict(Mark.WELL, f"The training loss fell from {begin:.4g} to {end:.4g}.")


def newest(run: Told) -> Record:
    """Return what the last report and the last evaluation say; whichever is newer has the last word."""
    found: Record = {}
    for record in sorted((*run.train[-1:], *run.test[-1:]), key=lambda record: float(record["seconds"])):
        found |= record
    return found
