"""A page of HTML that needs nothing but itself: its frame, its colours, its tables.

Does not know: what it shows.
"""

from collections.abc import Iterable, Sequence
from html import escape

# The page shows what files of a run say, which anybody may have changed: no script runs, nothing is fetched.
_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1d20; --faint: #5c6166; --line: #d9dcdf; --card: #f4f5f6;
  --blue: #0072b2; --red: #c05000; --green: #007a5a; --purple: #a8487f; --navy: #2b3a67; --grey: #6f6f6f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e8ea; --faint: #a3a9ae; --line: #34393e; --card: #1d2125;
    --blue: #6cb6e8; --red: #f0945a; --green: #4fc79b; --purple: #e493c0; --navy: #cfe0f3; --grey: #a9a9a9;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1152px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 16px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; border-bottom: 1px solid var(--line); }
p { margin: 4px 0 12px; color: var(--faint); max-width: 75ch; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 8px; margin: 16px 0; }
dl div { background: var(--card); border-radius: 6px; padding: 8px 12px; }
dt { font-size: 0.8rem; color: var(--faint); }
dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
.verdicts { list-style: none; padding: 0; margin: 12px 0; max-width: 75ch; }
.verdicts li { display: grid; grid-template-columns: 4.6em 1fr; gap: 10px; padding: 5px 0; }
.verdicts li { border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.verdicts span { min-width: 0; }
.verdicts strong { border-left: 4px solid; padding-left: 8px; white-space: nowrap; }
.well strong { color: var(--green); }
.wrong strong { color: var(--red); }
.open strong { color: var(--faint); }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); column-gap: 32px; }
.two h2 { overflow-wrap: anywhere; margin-top: 24px; }
.figures { display: grid; gap: 20px; margin-bottom: 20px; }
.figures { grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.figures.small { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 12px; }
figure { margin: 0; min-width: 0; }
figure p { font-size: 0.85rem; }
figcaption { font-size: 0.85rem; font-weight: 600; margin-bottom: 2px; }
svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
svg text { font-family: inherit !important; }
.narrow { display: none; }
@media (max-width: 700px) { .wide { display: none; } .narrow { display: block; } }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
td + td { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.numbers { max-width: 600px; margin-top: 16px; }
.numbers th, .numbers td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.numbers th:last-child, .numbers td:last-child { padding-right: 0; }
.numbers th:first-child, .numbers td:first-child { text-align: left; white-space: normal; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page.

    Args:
        title: as text.
        parts: as HTML.
    """
    return _FRAME.format(title=escape(title), style=_STYLE, body="\n".join(parts))


def text(tag: str, content: str) -> str:
    """Return an element that holds text."""
    return f"<{tag}>{escape(content)}</{tag}>"


def section(heading: str, parts: Sequence[str], note: str = "") -> str:
    """Return a part of a page with a heading; nothing if it would be empty."""
    if not parts:
        return ""
    return "\n".join(["<section>", text("h2", heading), *([text("p", note)] if note else []), *parts, "</section>"])


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values as a row of cards."""
    cards = "\n".join(f"<div>{text('dt', name)}{text('dd', value)}</div>" for name, value in pairs)
    return f"<dl>\n{cards}\n</dl>"


def figures(pictures: Iterable[tuple[str, str]], small: bool = False) -> list[str]:
    """Return captions and what is under them beside one another, as far as there is room; nothing for none."""
    shown = "\n".join(f"<figure>{text('figcaption', name)}{svg}</figure>" for name, svg in pictures)
    return [f'<div class="figures{" small" * small}">\n{shown}\n</div>'] if shown else []


def either(wide: str, narrow: str) -> str:
    """Return two ``svg`` elements of which a page shows the one that suits its width."""
    return f'<div class="wide">{wide}</div>\n<div class="narrow">{narrow}</div>'


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """Return a table of text.

    Args:
        headings: of the columns.
        rows: their cells.
        numbers: whether all columns but the first are numbers.
    """
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "\n".join("<tr>" + "".join(text("td", cell) for cell in row) + "</tr>" for row in rows)
    inside = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    # A number is never parted: where there is no room for all, a phone moves the table.
    if numbers:
        return f'<div class="scroll"><table class="numbers">\n{inside}\n</table></div>'
    return f"<table>\n{inside}\n</table>"
