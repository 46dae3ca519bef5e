import re
from importlib.resources import files

import pytest

from stalegrid.methods.published import METHODS, SERVER_METHODS
from stalegrid.methods.references import bibtex

CITATIONS = {method.name: method.citation for method in (*METHODS, *SERVER_METHODS)}
ARXIV = r"\d{4}\.\d{5}"


def fields_of(entry: str) -> dict[str, str]:
    """Return the fields of an entry without their outer braces, lines joined."""
    found = re.findall(r"^  (\w+) = \{(.*?)\},$", entry, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(value.split()) for name, value in found}


def test_every_method_has_one_entry_under_its_name() -> None:
    text = files("stalegrid.methods").joinpath("references.bib").read_text("utf-8")
    assert re.findall(r"^@\w+\{(.+),$", text, flags=re.MULTILINE) == list(CITATIONS)
    assert list(bibtex()) == list(CITATIONS)


@pytest.mark.parametrize("name", CITATIONS)
def test_an_entry_is_the_paper_that_the_citation_names(name: str) -> None:
    entry = fields_of(bibtex()[name])
    assert re.findall(ARXIV, CITATIONS[name]) == ([entry["eprint"]] if "eprint" in entry else [])
    surnames = [author.partition(",")[0].strip() for author in entry["author"].split(" and ")]
    assert surnames[0] in CITATIONS[name]
    if "eprint" not in entry:
        assert re.findall(r"\b(?:19|20)\d\d\b", CITATIONS[name]) == [entry["year"]]


@pytest.mark.parametrize("name", CITATIONS)
def test_an_entry_can_be_read_by_bibtex(name: str) -> None:
    entry = bibtex()[name]
    assert entry.isascii()
    assert entry.count("{") == entry.count("}")
    assert entry.startswith(("@misc{", "@article{", "@inproceedings{"))
    fields = fields_of(entry)
    venue = {"misc": "eprint", "article": "journal", "inproceedings": "booktitle"}[entry[1 : entry.index("{")]]
    assert {"title", "author", "year", venue} <= fields.keys()
    assert ("eprint" in fields) == (fields.get("archivePrefix") == "arXiv")
    assert all(author.count(",") == 1 for author in fields["author"].split(" and "))
    assert len(fields) == entry.count(" = ")  # no field was missed above


def test_methods_of_one_paper_have_the_same_entry() -> None:
    papers: dict[str, set[str]] = {}
    for name, entry in bibtex().items():
        number = fields_of(entry).get("eprint", name)
        papers.setdefault(number, set()).add(entry.replace(f"{{{name},", "{,"))
    assert all(len(entries) == 1 for entries in papers.values())
