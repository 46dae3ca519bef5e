"""Figures in the sentences of a page: where they stand, and whether a value is what they show.

Does not know: where values come from.
"""

import re

_UNIT = r" (?:(?:to|and|or|against|instead of) [\d.]+ )?(?:%|points|times|[kMG]B|m?s\b|samples/s)"
_NUMBER = re.compile(rf"(?<![\w.,/-])(\d+/\d+|\d[\d,]*(?<!,)(?:\.\d+)?(?:e-\d+)?)(?![\w/])(?=({_UNIT})?)")
_NAMES = r"[A-Za-z] ?=|sigma|beta|stage|arXiv|Python|PyTorch|torch|Apache|glibc"
_NAMED = re.compile(rf"\b(?:{_NAMES}) ?[\d.]+\b(?:(?:, [\d.]+)* and [\d.]+)?|\b\d+ x (?=\d)")
"""What no figure is by how it is written: n = 1, 15 and 30; sigma 0.5; Python 3.11; the 2 of 2 x 0.36 MB."""


def plain(text: str) -> str:
    """Return what is told in sentences: without commands, tables, code, comments, links' targets and line ends."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^\|.*$|<!--.*?-->|(?<=\])\([^)]*\)|\*\*", "", text, flags=re.MULTILINE)
    return " ".join(re.sub(r"`[^`]*`", "…", text).split())


def figures(text: str, described: str = "") -> list[tuple[int, str]]:
    """Return the figures of plain text, and where they stand.

    Args:
        text: plain.
        described: the settings of what it speaks of; a number that stands there too and has no unit is no figure.
    """
    settings = set(re.findall(r"\d[\d,]*(?:\.\d+)?", described))
    bare = _NAMED.sub(lambda found: " " * len(found[0]), text)
    return [(found.start(), found[1]) for found in _NUMBER.finditer(bare) if found[2] or found[1] not in settings]


def is_shown(value: float, figure: str) -> bool:
    """Return whether a value, rounded to the last digit of a figure, is that figure."""
    if "/" in figure:
        numerator, denominator = map(int, figure.split("/"))
        return abs(numerator / value - denominator) <= 0.5
    digits, _, power = figure.replace(",", "").partition("e")
    last = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    return abs(value - float(figure.replace(",", ""))) <= 0.5 * last * (1 + 1e-6)  # a half may go either way
