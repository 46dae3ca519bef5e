"""Pages show the tables of benchmarks/tables, and what is said of them follows from their figures."""

import json
import re
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.tables import FOLDER, PAGES, ROOT, filled, table
from tests.benchmarks.figures import figures, is_shown, plain

FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
RESULTS = (ROOT / "docs" / "results.md").read_text()


def where(file: dict[str, Any]) -> tuple[str, str]:
    return file.get("page", "docs/results.md"), file["section"]


def sections(page: str) -> list[tuple[str, str]]:
    found = re.split(r"^##+ (.*)\n", (ROOT / page).read_text(), flags=re.MULTILINE)[1:]
    return list(zip(found[::2], found[1::2], strict=True))


@dataclass(frozen=True)
class Part:
    """A part of the page: what comes before its first table, commands included, and the sentences after it."""

    page: str
    heading: str
    described: str
    said: str

    @property
    def told(self) -> str:
        return f"{plain(self.described)} {self.said}"

    @property
    def files(self) -> list[dict[str, Any]]:
        return [file for file in FILES.values() if where(file) == (self.page, self.heading)]

    @property
    def figures(self) -> list[tuple[int, str]]:
        return figures(self.said, f"{self.heading} {self.described}")


def parts() -> list[Part]:
    """Return the parts that are held: all of the page of results, and those of others whose files say how."""
    said = {where(file) for file in FILES.values() if "computed" in file}
    found = []
    for page in sorted({page for page, _ in said}):
        for heading, text in sections(page):
            before, *after = re.split("<!-- table: .*-->", text, maxsplit=1)
            if page == "docs/results.md" or (page, heading) in said:
                found.append(Part(page, heading, before if after else "", plain(after[0] if after else before)))
    return found


def named(value: Any) -> Any:
    return SimpleNamespace(**{k: named(v) for k, v in value.items()}) if isinstance(value, dict) else value


def names(files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what expressions may use: rows by name, and all rows of tables."""
    pairs = [pair for file in files for pair in {**file["rows"], **file.get("apart", {})}.items()]
    assert len(dict(pairs)) == len(pairs), "names of rows must differ"
    shown = [named(row) for file in files for row in file["rows"].values()]
    return {**{name: named(row) for name, row in pairs}, "rows": shown, "log": log}


def computed_wrongly(part: Part, piece: str, ways: str | list[str]) -> list[str]:
    known = names(part.files)
    if isinstance(ways, str):
        return [] if eval(ways, known) is True else [f"does not hold: {piece}"]
    shown = [figure for _, figure in figures(piece)]
    values = [float(eval(way, known)) for way in ways]
    right = len(shown) == len(values) and all(map(is_shown, values, shown))
    return [] if right else [f"{piece}: {values}"]


def faults(part: Part) -> list[str]:
    """Return what a part of the page says that its files do not."""
    computed = [pair for file in part.files for pair in file.get("computed", {}).items()]
    pieces = [piece for file in part.files for piece in (*file.get("computed", {}), *file.get("stated", {}))]
    found = [f"stands {part.told.count(piece)} times: {piece}" for piece in pieces if part.told.count(piece) != 1]
    found += [fault for piece, ways in computed for fault in computed_wrongly(part, piece, ways)]
    spans = [one.span() for piece in pieces for one in re.finditer(re.escape(piece), part.said)]
    loose = [at for at, _ in part.figures if not any(start <= at < end for start, end in spans)]
    return found + [f"from nowhere: {part.said[max(0, at - 40) : at + 20]}" for at in loose]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_a_page_are_those_of_the_files(page: Path) -> None:
    assert page.read_text() == filled(page), "python -m benchmarks.tables writes them anew"


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_shown_where_it_says_beside_its_commands(name: str) -> None:
    for page in FILES[name]["columns"]:
        text = (ROOT / page).read_text()
        if "printed" in FILES[name]:
            lines = [" ".join(line.split()).replace(", ", ",") for line in text.splitlines()]
            head, _, *rows = table(name, page).replace(", ", ",").splitlines()
            assert [row for row in (head, *rows) if " ".join(row.replace("|", " ").split()) not in lines] == []
        else:
            assert f"<!-- table: {name} -->\n\n|" in text
    page, heading = where(FILES[name])
    text = " ".join(dict(sections(page))[heading].split())
    assert [command for command in FILES[name]["commands"] if command not in text] == []


def test_every_table_of_results_is_of_a_file() -> None:
    before = re.findall(r"^(.*)\n\n\|", RESULTS, flags=re.MULTILINE)
    assert len(before) == len(re.findall(r"^\|---", RESULTS, flags=re.MULTILINE))
    assert [line for line in before if not line.startswith("<!-- table: ")] == []


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if "derived" in file])
def test_derived_values_follow_from_others(name: str) -> None:
    known = names([FILES[name]])
    for key, way in FILES[name]["derived"].items():
        values = {row: values[key] for row, values in FILES[name]["rows"].items() if key in values}
        assert values
        for row, value in values.items():
            assert is_shown(eval(way, {**known, **vars(known[row])}), str(value))


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.heading)
def test_what_is_said_follows_from_the_figures(part: Part) -> None:
    assert faults(part) == []


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.heading)
def test_a_changed_digit_is_found(part: Part) -> None:
    """Every digit of every figure that is said, one after the other."""
    said = part.said
    places = [at + i for at, figure in part.figures for i, sign in enumerate(figure) if sign.isdigit()]
    changed = [replace(part, said=f"{said[:at]}{(int(said[at]) + 1) % 10}{said[at + 1 :]}") for at in places]
    assert [
        one.said[max(0, at - 40) : at + 20] for at, one in zip(places, changed, strict=True) if not faults(one)
    ] == []
