"""The site: every public name has its place in it, every page is found from it, and no page needs another host."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import pytest
import yaml

import stalegrid
from stalegrid.cli import make_parser
from stalegrid.commands import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def hook(name: str) -> ModuleType:
    """Load a file that takes part in the build."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def pages(entry: Any) -> Iterator[str]:
    """Yield the pages below an entry of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for child in entry.values() if isinstance(entry, dict) else entry:
            yield from pages(child)


def test_every_public_name_is_in_the_reference_once() -> None:
    said = re.findall(r"^::: stalegrid\.(\S+)$", "\n".join(p.read_text() for p in DOCS.glob("reference/*.md")), re.M)
    # The door is a function in a file of its own name, which is found first.
    names = ["train" if name == "train.train" else name for name in said]
    assert len(names) == len(set(names))
    assert {name for name in names if "." not in name} == set(stalegrid.__all__)


def test_the_navigation_has_every_page_and_no_other() -> None:
    around = hook("around").PAGES
    assert all((ROOT / source).is_file() for source in around)
    files = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    made = {f"{path.stem}.md" for path in DOCS.glob("*.ipynb")}
    assert not files & made
    found = list(pages(CONFIG["nav"]))
    assert len(found) == len(set(found))
    assert set(found) == files | made | set(around.values())


def test_every_file_that_takes_part_in_the_build_is_named() -> None:
    assert set(CONFIG["hooks"]) == {str(path.relative_to(ROOT)) for path in DOCS.glob("hooks/*.py")}


def test_links_of_files_beside_docs_lead_to_pages_or_out_of_docs() -> None:
    around = hook("around")
    for source in around.PAGES:
        links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", around.moved((ROOT / source).read_text()))
        assert links or source == "CHANGELOG.md"
        for link in links:
            assert (DOCS / link).exists() or link in around.PAGES.values(), (source, link)


def headings(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as the build makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in re.findall(r"^#+ (.*)$", text, re.M))
    return {re.sub(r"[\s-]+", "-", heading) for heading in words}


def test_links_into_pages_lead_to_headings() -> None:
    for page in (*DOCS.glob("*.md"), *ROOT.glob("*.md")):
        for name, anchor in re.findall(r"\]\(((?:docs/)?[\w-]+\.md)?#([^)]+)\)", page.read_text()):
            target = page.parent / name if name else page
            # The build makes pages of notebooks, and looks at these links itself.
            if target.exists():
                assert anchor in headings(target), (page.name, target.name, anchor)


@pytest.mark.parametrize(
    ("page", "address", "told"),
    [
        ("results.md", None, "examples, [data](data.md)"),
        ("reference/training.md", None, "[examples](../examples), [data](data.md)"),
        ("results.md", "https://x.org/r", "[examples](https://x.org/r/blob/HEAD/examples), [data](data.md)"),
    ],
)
def test_what_leads_out_of_docs_is_text_unless_the_repository_says_where_it_is(
    page: str, address: str | None, told: str
) -> None:
    where = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    text = "[examples](../examples), [data](data.md)"
    assert hook("outside").on_page_markdown(text, where, SimpleNamespace(repo_url=address)) == told


def test_every_command_and_option_is_on_the_page_of_the_command_line() -> None:
    commands = hook("commands")
    assert commands.PLACE in (DOCS / "command-line.md").read_text()
    sections = dict(re.findall(r"^## stalegrid (\w+)\n(.*?)(?=^## |\Z)", commands.told(), re.M | re.S))
    assert list(sections) == list(COMMANDS)
    for name, parser in make_parser()[1].items():
        options = set(re.findall(r"^  (--[a-z.-]+)", parser.format_help(), re.M))
        assert {option for option in options if f">{option}" not in sections[name]} == set()


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_came_of_it(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://unpkg.com/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.googleapis.com/css">',
        '<img src="http://example.org/a.png">',
        "<style>@import 'https://example.org/a.css';</style>",
        '<p style="background: url(https://example.org/a.png)">',
    ],
)
def test_a_page_that_loads_from_another_host_is_refused(loads: str) -> None:
    assert hook("alone").loaded(f"<body>{loads}</body>")


def test_a_page_may_link_anywhere_and_load_what_is_its_own() -> None:
    own = '<a href="https://arxiv.org">url(https://x)</a><script src="a.js"></script><img src="data:image/png;base64,">'
    assert not hook("alone").loaded(own)


def test_marks_of_docstrings_are_links() -> None:
    told = hook("roles").on_page_content("as :func:<code>stalegrid.train</code> does")
    assert told == 'as <autoref optional identifier="stalegrid.train"><code>stalegrid.train</code></autoref> does'
