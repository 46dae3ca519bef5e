"""What an entry of the gallery says: how a published result is trained again, and what would agree with it.

Does not know: how anything is trained, kept or shown.
"""

import math
import shlex
import statistics
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

MISSED = "missed"

Record = dict[str, Any]
"""What is kept of one trial."""

Same = Mapping[str, Record]
"""The trials of one seed, by the name of their way."""

Value = Callable[..., float]
"""A number of the records of some ways, all of one seed."""


@dataclass(frozen=True)
class Way:
    """One way to train.

    Args:
        name: as the table has it.
        options: of ``stalegrid train``, beside those of its scale.
        published: the entry's first figure, as it was published; None where it was not.
        panel: of the picture, in which its curve is drawn.
    """

    name: str
    options: str
    published: float | None = None
    panel: str = ""


@dataclass(frozen=True)
class Scale:
    """A budget.

    Args:
        about: what of the published settings is as published, and what is not.
        options: of all its ways.
        ways: that are trained.
        seeds: how many, from 0 on.
    """

    about: str
    options: str
    ways: tuple[Way, ...]
    seeds: int = 3


@dataclass(frozen=True)
class Trial:
    """One run: an entry's way at a scale, with a seed."""

    entry: str
    scale: str
    way: str
    seed: int
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """That of its folder; another one where options are others, since a run goes on only as it began."""
        plain = "".join(c if c.isalnum() else "-" for c in self.way)
        return f"{self.entry}/{self.scale}/{plain}-{self.seed}-{zlib.crc32(' '.join(self.options).encode()):08x}"


@dataclass(frozen=True)
class Estimate:
    """A number over seeds.

    Args:
        mean: over seeds.
        error: of the mean, the spread over the root of their number; None with one seed.
        seeds: how many.
    """

    mean: float
    error: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate | None":
        """Return that of some values; None where there are none."""
        if not values:
            return None
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(statistics.fmean(values), error, len(values))


@dataclass(frozen=True)
class Claim:
    """What was published, as a bound of a number.

    Args:
        says: the claim in words, with the published number.
        ways: whom it is about.
        value: what is bounded, of the records of these ways with one seed: seeds are paired, since all ways have the
            same samples and first weights.
        at_most: the bound; or
        at_least: this one.
        unit: of the value.
        tried: where it is missed, why that may be, or what was tried.
    """

    says: str
    ways: tuple[str, ...]
    value: Value
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""
    tried: str = ""

    def estimate(self, seeds: Sequence[Same]) -> Estimate | None:
        """Return the value over the seeds with which all its ways were trained, and have its figure."""
        values = []
        for same in seeds:
            with suppress(KeyError):
                values.append(self.value(*(same[way] for way in self.ways)))
        return Estimate.of(values)

    def verdict(self, found: Estimate | None) -> str:
        """Return what follows: a number whose two standard errors hold the bound decides nothing."""
        if found is None:
            return "not run"
        beyond = found.mean - self.at_most if self.at_most is not None else (self.at_least or 0.0) - found.mean
        if found.error is None:
            return "one seed: no verdict"
        if abs(beyond) < 2 * found.error:
            return "not decided by these seeds"
        return "agrees" if beyond <= 0 else MISSED


@dataclass(frozen=True)
class Figure:
    """A column of the table.

    Args:
        key: of the records.
        name: in words, with its unit.
        form: how its numbers are written.
    """

    key: str
    name: str
    form: str = ".2f"


ERROR = Figure("test_error", "test error, %")
LOSS = Figure("test_loss", "test loss", ".3f")
RATE = Figure("virtual_rate", "samples/s in virtual time", ".0f")


@dataclass(frozen=True)
class Counts:
    """A distribution that is drawn.

    Args:
        key: of the records that have it: how often each value from 0 on was seen.
        name: of the values.
        unit: of the values, in words.
        ways: whose it is.
    """

    key: str
    name: str
    unit: str
    ways: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A published result.

    Args:
        name: of its file, its results and its picture.
        title: a heading.
        source: who published it.
        published: what, in words.
        figures: that are shown; the first is what ways have published, and whose curves are drawn.
        scales: by name; all have smoke, which only shows that it runs.
        claims: that are held against it; those whose ways a scale does not have are not its own.
        chance: what a run counts whose loss became not a number, for the first figure; None where it counts for none.
        counts: that are drawn beside curves; None where there are none.
    """

    name: str
    title: str
    source: str
    published: str
    figures: tuple[Figure, ...]
    scales: Mapping[str, Scale]
    claims: tuple[Claim, ...]
    chance: float | None = None
    counts: Counts | None = None

    def trials(self, scale: str) -> list[Trial]:
        """Return what is trained at a scale, all ways with the first seed before the next."""
        asked = self.scales[scale]
        return [
            Trial(self.name, scale, way.name, seed, tuple(shlex.split(f"{asked.options} {way.options} --seed {seed}")))
            for seed in range(asked.seeds)
            for way in asked.ways
        ]


def difference(key: str) -> Value:
    """Return a value: how much larger a figure of one way is than that of another."""
    return lambda one, other: float(one[key] - other[key])


def quotient(key: str) -> Value:
    """Return a value: how many times larger a figure of one way is than that of another."""
    return lambda one, other: float(one[key] / other[key])


def itself(key: str) -> Value:
    """Return a value: a figure of one way."""
    return lambda one: float(one[key])
