"""docs/gallery.md and its pictures, made of what is kept and of nothing else.

Does not know: how anything was trained.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.entry import MISSED, Claim, Entry, Estimate, Figure, Record, Same, Way
from benchmarks.gallery.kept import RESULTS, by_seed

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = ("cpu", "full")

_HEAD = """# Gallery: published results, trained again

One entry a published result: what was published, what is trained for it, what came of it, and a verdict for every
claim.

```
python -m benchmarks.gallery NAME --scale cpu --workers 2 --data-dir DIR
```

trains what is missing, run by run; a run that is stopped goes on from its last checkpoint, and what has been trained
is not trained again. Every number below is made of `benchmarks/gallery/results/*.jsonl`, a line a run, with the
machine, the commit and all options, by `python -m benchmarks.gallery --page`.

A figure is the mean over seeds ± their sample standard deviation. All ways of an entry have the same samples and
first weights with the same seed, so claims are held against differences seed by seed: a claim *agrees* or is *missed*
if their mean is within or beyond the published bound by two standard errors or more, and else it is *not decided by
these seeds*. Scale `cpu` is a smaller budget than the published one, and says in what; its figures are to be held
against each other, not against the published ones. CIFAR-10 here is a lossless copy of the official images for all
but 103 of 60,000 rows: test errors may differ by at most 0.23 points from those on the official files.
"""


def write(docs: Path = DOCS, results: Path = RESULTS) -> None:
    """Write the page, and a picture for every entry and scale that has curves.

    Args:
        docs: folder of the page.
        results: folder of what is kept.
    """
    matplotlib.rcParams["svg.hashsalt"] = "gallery"  # the same names within a file each time
    (docs / "gallery.md").write_text(text(results))
    for entry in ENTRIES.values():
        for scale in _run(entry, results):
            if _curves(entry, by_seed(entry, scale, results)):
                picture(entry, scale, results).savefig(docs / _file(entry, scale), metadata={"Date": None})


def text(results: Path = RESULTS) -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(line for entry in ENTRIES.values() for line in _section(entry, results))])


def verdicts(entry: Entry, scale: str, results: Path) -> Iterator[str]:
    """Say of each claim whether it holds."""
    seeds = _counted(entry, by_seed(entry, scale, results))
    names = {way.name for way in entry.scales[scale].ways}
    for claim in entry.claims:
        if names.issuperset(claim.ways):
            found = claim.estimate(seeds)
            verdict = claim.verdict(found)
            tried = f": {claim.tried}" if verdict == MISSED else ""
            yield f"* {claim.says}: {_measured(claim, found)}**{verdict}**{tried}"


def _measured(claim: Claim, found: Estimate | None) -> str:
    if found is None:
        return ""
    error = "" if found.error is None else f" ± {found.error:.3g}"
    several = "s" if found.seeds > 1 else ""
    return f"{found.mean:.3g}{error}{claim.unit} ({found.seeds} seed{several}), "


def _counted(entry: Entry, seeds: Sequence[Same]) -> list[Same]:
    """Return the trials with what a run counts whose loss became not a number."""
    key = entry.figures[0].key

    def one(found: Record) -> Record:
        kept = {name: value for name, value in found.items() if value is not None}
        return kept | {key: entry.chance} if found["failed"] and entry.chance is not None else kept

    return [{way: one(found) for way, found in same.items()} for same in seeds]


def _run(entry: Entry, results: Path) -> list[str]:
    """Return the scales of which something was trained."""
    return [scale for scale in SHOWN if scale in entry.scales and any(by_seed(entry, scale, results))]


def _section(entry: Entry, results: Path) -> Iterator[str]:
    yield f"\n## {entry.title}\n"
    yield f"{entry.source}. {entry.published}\n"
    run = _run(entry, results)
    for scale in run:
        yield from _scale(entry, scale, results)
    left = [scale for scale in SHOWN if scale in entry.scales and scale not in run]
    for scale in left:
        about = entry.scales[scale].about
        yield f"Scale `{scale}` ({about}): **not run**; `python -m benchmarks.gallery {entry.name} --scale {scale}`.\n"
    if "full" not in entry.scales:
        yield "There is no scale `full`: what is measured is speed in virtual time, the same in longer runs.\n"


def _scale(entry: Entry, scale: str, results: Path) -> Iterator[str]:
    asked, seeds = entry.scales[scale], by_seed(entry, scale, results)
    yield f"Scale `{scale}`: {asked.about}. Every run is `stalegrid train` with `--engine simulator` and\n"
    yield f"```\n{asked.options.strip()}\n```\n"
    published = any(way.published is not None for way in asked.ways)
    heads = ["way", "options", *(["published"] if published else []), *(f.name for f in entry.figures), "seeds"]
    yield f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}"
    for way in asked.ways:
        yield _row(entry, way, [same[way.name] for same in seeds if way.name in same], published)
    yield ""
    yield from verdicts(entry, scale, results)
    if _curves(entry, seeds):
        yield f"\n![{entry.figures[0].name} over epochs]({_file(entry, scale)})"
    yield f"\n{_where([found for same in seeds for found in same.values()])}\n"


def _row(entry: Entry, way: Way, found: Sequence[Record], published: bool) -> str:
    told = "" if way.published is None else f"{way.published:{entry.figures[0].form}}"
    cells = [way.name, f"`{way.options.strip()}`", *([told] if published else [])]
    cells += [_cell(entry, number, figure, found) for number, figure in enumerate(entry.figures)]
    return f"| {' | '.join([*cells, str(len(found)) if found else 'not run'])} |"


def _cell(entry: Entry, number: int, figure: Figure, found: Sequence[Record]) -> str:
    ended = [one for one in found if not (number == 0 and one["failed"])]
    values = [one[figure.key] for one in ended if one.get(figure.key) is not None]
    failed = len(found) - len(ended)
    lost = f"not a number with {failed} of {len(found)}" if failed else ""
    if not values:
        return lost
    spread = f" ± {statistics.stdev(values):{figure.form}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{figure.form}}{spread}" + (f"; {lost}" if lost else "")


def _where(found: Sequence[Record]) -> str:
    machines = sorted({f"{one['machine']['cores']} x {one['machine']['processor']}" for one in found})
    torches = sorted({str(one["machine"]["torch"]) for one in found})
    commits = sorted({one["commit"] for one in found})
    hours = sum(one["seconds"] for one in found) / 3600
    return (
        f"Taken on {', '.join(machines)}, PyTorch {', '.join(torches)}, at commit {', '.join(commits)}: "
        f"{len(found)} runs, {hours:.1f} hours of one core, which others used too."
    )


def _file(entry: Entry, scale: str) -> str:
    return f"gallery-{entry.name}-{scale}.svg"


def _curves(entry: Entry, seeds: Sequence[Same]) -> dict[str, list[list[list[float]]]]:
    """Return the curves of every way, a list for each seed: points of epoch, test error and test loss."""
    curves: dict[str, list[list[list[float]]]] = {}
    for same in seeds:
        for way, found in same.items():
            if len(found["curve"]) > 1 and not found["failed"]:
                curves.setdefault(way, []).append(found["curve"])
    return curves if entry.figures[0].key in _COLUMNS else {}


_COLUMNS = {"test_error": 1, "test_loss": 2}
"""Of the points of a curve."""


def picture(entry: Entry, scale: str, results: Path = RESULTS) -> Canvas:
    """Draw the first figure of all ways over epochs: the mean over seeds, and what lies between them."""
    curves = _curves(entry, by_seed(entry, scale, results))
    canvas = Canvas(figsize=(8, 4.5), layout="constrained", facecolor="white")
    axes = canvas.add_subplot(xlabel="epochs", ylabel=entry.figures[0].name)
    for number, (way, several) in enumerate(curves.items()):
        _line(axes, several, _COLUMNS[entry.figures[0].key], way, number)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", bbox_to_anchor=(1, 1), loc="upper left")
    return canvas


def _line(axes: Axes, several: Sequence[Sequence[Sequence[float]]], column: int, way: str, number: int) -> None:
    points = list(zip(*several, strict=False))
    epochs = [same[0][0] for same in points]
    values = [[point[column] for point in same] for same in points]
    style = ("-", "--", ":", "-.")[number // 10 % 4]
    (line,) = axes.plot(epochs, [statistics.fmean(v) for v in values], style, label=way)
    if len(several) > 1:
        low, high = [min(v) for v in values], [max(v) for v in values]
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
