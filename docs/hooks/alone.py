"""Holds every built page to what the site promises: it loads nothing from another host.

Does not know: what pages say; links, which a reader follows, may lead anywhere.
"""

import re
from html.parser import HTMLParser
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

_ELSEWHERE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
_STYLE = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)
_LOADING = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "prefetch", "dns-prefetch", "manifest"}


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Let a page pass.

    Raises:
        PluginError: it loads something from another host.
    """
    if found := loaded(output):
        raise PluginError(f"{page.file.src_uri} loads from another host: {', '.join(found)}; keep it in docs/")
    return output


def loaded(page: str) -> list[str]:
    """Return the addresses on other hosts that a browser asks for when it shows a page."""
    reader = _Reader()
    reader.feed(page)
    return reader.found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._styling = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self._styling = tag == "style"
        places = [said[name] for name in ("src", "srcset", "poster", "data") if name in said]
        if tag == "link" and _LOADING & set(said.get("rel", "").lower().split()):
            places.append(said.get("href", ""))
        self.found += [place for place in places if _ELSEWHERE.match(place)]
        self.found += _STYLE.findall(said.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._styling:
            self.found += _STYLE.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self._styling = False
