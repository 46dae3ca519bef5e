"""Two runs side by side: what went well or wrong in each, what was chosen otherwise, what came of it.

Does not know: folders, how pictures are drawn.  What only one of the two has is left out of pictures and numbers.
"""

from collections.abc import Iterator

from stalegrid.observe import VIRTUAL
from stalegrid.report.apart import distances
from stalegrid.report.chosen import chosen, flat, shown
from stalegrid.report.ending import subtitle
from stalegrid.report.figures import COLOURS, INK, Curve, curves
from stalegrid.report.learning import CLOCK, metrics
from stalegrid.report.numbers import further, headline
from stalegrid.report.page import figures, page, section, table, text
from stalegrid.report.quantities import quantities, stages_of
from stalegrid.report.sections import name_of, verdicts
from stalegrid.report.series import EPOCHS, gap_of_stages, points
from stalegrid.report.told import Told
from stalegrid.report.words import metric

Points = list[tuple[float, float]]
Pair = tuple[Told, Told]

NAMES = ("A", "B")
"""What the two are called where there is little room."""

_STYLES = ("-", "--")

_NUMBERS = "Of the last report and the last evaluation of each; the mean staleness is that of the stalest stage."

_SETTINGS = "What was chosen, or settled, and is not the same; - stands for what a run says nothing of."

_DIAGNOSED = "What was measured of the theory, and what it is held against, each in a colour of its own."


def compared(runs: Pair, folders: tuple[str, str]) -> str:
    """Return the page.

    Args:
        runs: to compare.
        folders: what each is called.
    """
    pictures = [*figures([*_learned(runs, *EPOCHS), *_moved(runs)]), *figures(_timed(runs))]
    parts = [
        text("h1", f"{folders[0]} beside {folders[1]}"),
        _heads(runs, folders),
        section("Numbers", _numbers(runs), _NUMBERS),
        section("Settings that differ", _settings(runs), _SETTINGS),
        section("Curves", pictures),
        section("Diagnosis", figures(_diagnosed(runs)), _DIAGNOSED),
    ]
    return page(f"{folders[0]} beside {folders[1]}: report", filter(None, parts))


def _heads(runs: Pair, folders: tuple[str, str]) -> str:
    """Return what is said of each run, beside one another as far as there is room."""
    heads = (
        f"<section>{text('h2', f'{letter}: {folder}')}{text('p', f'{name_of(run)}. {subtitle(run)}')}{verdicts(run)}"
        "</section>"
        for letter, folder, run in zip(NAMES, folders, runs, strict=True)
    )
    return f'<div class="two">{"".join(heads)}</div>'


def _numbers(runs: Pair) -> list[str]:
    a, b = ({number.name: number for number in (*headline(run), *further(run))} for run in runs)
    rows = [(name, str(a[name]), str(b[name]), b[name].beyond(a[name])) for name in a if name in b]
    return [table(("", *NAMES, "B - A"), rows, numbers=True)] if rows else []


def _settings(runs: Pair) -> list[str]:
    a, b = (flat(run.config) for run in runs)
    paths = dict.fromkeys(path for run in runs for path in chosen(run.config) if a.get(path) != b.get(path))
    rows = [(path, *(shown(one[path]) if path in one else "-" for one in (a, b))) for path in paths]
    return [table(("setting", *NAMES), rows) if rows else text("p", "None.")]


def _learned(runs: Pair, key: str, label: str) -> Iterator[tuple[str, str]]:
    """Yield what both have learned over a clock that both have."""
    for name, value in (
        ("Training loss", "loss"),
        ("Test loss", "test_loss"),
        ("Training accuracy", "train_accuracy"),
        ("Test accuracy", "test_accuracy"),
        *((metric(name).capitalize(), name) for name in metrics(runs[0])),
    ):
        # No entry is one of reports and of evaluations.
        found = [points([*run.train, *run.test], key, value) for run in runs]
        yield from _both(found, f"{name} over {label}", label)


def _timed(runs: Pair) -> Iterator[tuple[str, str]]:
    if all(run.train and VIRTUAL in run.train[-1] for run in runs):
        yield from _learned(runs, *CLOCK)


def _moved(runs: Pair) -> Iterator[tuple[str, str]]:
    yield from _both([_mean_gap(run) for run in runs], "Gap over epochs, mean over stages", "epochs")
    yield from _both([distances(run) for run in runs], "Consensus distance over epochs", "epochs")


def _both(found: list[Points], title: str, x: str) -> Iterator[tuple[str, str]]:
    """Yield a picture of what two runs have, unless one has nothing."""
    if all(found):
        name = title.partition(" over ")[0].lower()
        # Two runs of the same bits lie on one another: both are to be seen.
        drawn = [Curve(NAMES[0], found[0]), Curve(NAMES[1], found[1], _STYLES[1])]
        yield title, curves(title, drawn, x, name, percent="accuracy" in name)


def _diagnosed(runs: Pair) -> Iterator[tuple[str, str]]:
    """Yield the quantities that both were diagnosed with; nothing of single stages where one has more of them."""
    if not all(run.diagnoses for run in runs):
        return
    stages = {stages_of(run.diagnoses) for run in runs}
    for quantity in quantities(stages.pop() if len(stages) == 1 else 0):
        drawn: list[Curve] = []
        # A colour is a line here: of many stages the first, which are the stalest, have limits in the picture.
        for line, colour in zip((*quantity.measured, *quantity.against), COLOURS, strict=False):
            found = [line.points(run.diagnoses) for run in runs]
            if all(found):
                drawn += map(Curve, (line.name, ""), found, _STYLES, (colour, colour))
        if drawn:
            drawn += map(Curve, NAMES, ([], []), _STYLES, (INK, INK))  # in the legend alone
            yield quantity.title, curves(quantity.title, drawn, EPOCHS[1], quantity.label, log=quantity.log)


def _mean_gap(run: Told) -> Points:
    stages: dict[float, list[float]] = {}
    for found in gap_of_stages(run.train).values() if run.team is None else ():
        for epoch, gap in found:
            stages.setdefault(epoch, []).append(gap)
    return [(epoch, sum(gaps) / len(gaps)) for epoch, gaps in stages.items()]
