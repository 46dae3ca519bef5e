"""docs/gallery.md, made of what is kept and of nothing else.

Does not know: how anything was trained, how pictures are drawn.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.entry import MISSED, Claim, Entry, Estimate, Figure, Record, Same, Way
from benchmarks.gallery.kept import RESULTS, by_seed
from benchmarks.gallery.pictures import pictures

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
these seeds*. A run whose loss becomes not a number ends there: tables leave it out of their means and say so, pictures
leave it out, and claims about test errors count it as 90 %, which is the error of guessing one of ten classes. The last
column of a table says with how many of the seeds that are asked for a way was trained.

Scale `cpu` is a smaller budget than the published one, and says in what; its figures are to be held against each
other, not against the published ones. CIFAR-10 here is a lossless copy of the official images for all but 103 of
60,000 rows: test errors may differ by at most 0.23 points from those on the official files.

`-dirty` behind a commit: files under version control differed from it when the run began, and how is not kept. In runs
before commit d8946a6b17fc it may be no more than results that the gallery itself had added to its files; since then
these do not count.
"""


def write(docs: Path = DOCS, results: Path = RESULTS) -> None:
    """Write the page and the pictures that it shows.

    Args:
        docs: folder of the page.
        results: folder of what is kept.
    """
    matplotlib.rcParams["svg.hashsalt"] = "gallery"  # the same names within a file each time
    (docs / "gallery.md").write_text(text(results))
    for entry in ENTRIES.values():
        for scale in _run(entry, results):
            for picture in pictures(entry, scale, by_seed(entry, scale, results)):
                picture.draw().savefig(docs / picture.file, metadata={"Date": None})


def text(results: Path = RESULTS) -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(line for entry in ENTRIES.values() for line in _section(entry, results))])


def verdicts(entry: Entry, scale: str, results: Path) -> Iterator[str]:
    """Say of each claim whether it holds."""
    seeds = [{way: _counted(entry, found) for way, found in same.items()} for same in by_seed(entry, scale, results)]
    names = {way.name for way in entry.scales[scale].ways}
    for claim in entry.claims:
        if names.issuperset(claim.ways):
            found = claim.estimate(seeds)
            verdict = claim.verdict(found)
            tried = f": {claim.tried}" if verdict == MISSED else ""
            lost = sum(bool(same[way].get("failed")) for same in seeds if claim.estimate([same]) for way in claim.ways)
            counted = f", {_several(lost, 'run')} not a number and counted as {entry.chance:g}" if lost else ""
            yield f"* {claim.says}: {_measured(claim, found, counted)}**{verdict}**{tried}"


def _measured(claim: Claim, found: Estimate | None, counted: str) -> str:
    if found is None:
        return ""
    error = "" if found.error is None else f" ± {found.error:.3g}"
    return f"{found.mean:.3g}{error}{claim.unit} ({_several(found.seeds, 'seed')}{counted}), "


def _several(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _counted(entry: Entry, found: Record) -> Record:
    """Return what claims count of a run: one whose loss became not a number has but what the entry says that it is."""
    if not found["failed"]:
        return {name: value for name, value in found.items() if value is not None}
    chance = {} if entry.chance is None else {entry.figures[0].key: entry.chance}
    return {"failed": found["failed"], **chance}


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
        yield _row(entry, way, [same[way.name] for same in seeds if way.name in same], published, asked.seeds)
    yield ""
    yield from verdicts(entry, scale, results)
    if shown := pictures(entry, scale, seeds):
        yield from (f"\n![{picture.says}]({picture.file})" for picture in shown)
        yield from _undrawn(asked.ways, seeds)
    yield f"\n{_where([found for same in seeds for found in same.values()])}\n"


def _undrawn(ways: Sequence[Way], seeds: Sequence[Same]) -> Iterator[str]:
    """Say which ways' runs the picture of curves does not have, of those that were trained."""
    lost = {way.name: sum(bool(same[way.name]["failed"]) for same in seeds if way.name in same) for way in ways}
    if any(lost.values()):
        each = "; ".join(f"{name} ({_several(number, 'run')})" for name, number in lost.items() if number)
        yield f"\nNot a number, and so not drawn: {each}."


def _row(entry: Entry, way: Way, found: Sequence[Record], published: bool, seeds: int) -> str:
    told = "" if way.published is None else f"{way.published:{entry.figures[0].form}}"
    cells = [way.name, f"`{way.options.strip()}`", *([told] if published else [])]
    cells += [_cell(entry, number, figure, found) for number, figure in enumerate(entry.figures)]
    return f"| {' | '.join([*cells, f'{len(found)} of {seeds}' if found else 'not run'])} |"


def _cell(entry: Entry, number: int, figure: Figure, found: Sequence[Record]) -> str:
    ended = [one for one in found if not one["failed"]]
    values = [one[figure.key] for one in ended if one.get(figure.key) is not None]
    failed = len(found) - len(ended)
    lost = f"not a number with {failed} of {len(found)}" if failed and number == 0 else ""
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
