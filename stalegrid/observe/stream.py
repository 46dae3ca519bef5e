"""Consoles that show any name as it is, and survive an output that takes not every character.

Does not know: what is shown.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast

from rich.console import Console

from stalegrid.errors import OutputError


class Stream:
    """Standard output or standard error of this moment, where there is one.

    Args:
        name: ``stdout`` or ``stderr``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def encoding(self) -> str:
        """How characters are written."""
        return getattr(self._stream(), "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write text; characters that the encoding lacks are written as escapes.

        Raises:
            OutputError: nobody takes it.
        """
        stream = self._stream()
        if stream is not None:
            # A character that a terminal lacks must not end a run.
            known = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            self._try(stream, lambda: stream.write(known))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written.

        Raises:
            OutputError: nobody takes it.
        """
        stream = self._stream()
        if stream is not None:
            self._try(stream, stream.flush)

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        stream = self._stream()
        return stream is not None and not stream.closed and stream.isatty()

    def fileno(self) -> int:
        """Return the number of the file."""
        stream = self._stream()
        if stream is None:
            raise OSError(f"there is no {self._name}")
        return stream.fileno()

    def _stream(self) -> TextIO | None:
        # Looked up each time: tests and notebooks put others in its place.
        return cast("TextIO | None", getattr(sys, self._name))

    def _try(self, stream: TextIO, act: Callable[[], object]) -> None:
        try:
            act()
        except (OSError, ValueError) as problem:  # ValueError: it was closed
            _silence(stream)
            raise OutputError(f"what is printed cannot be written ({self._name}): {problem}") from problem


def make_console(name: str = "stdout", **options: Any) -> Console:
    """Return a console that prints text as it is: brackets are no markup, colons no emoji.

    Args:
        name: ``stdout`` or ``stderr``.
        options: further ones of rich's console.
    """
    stream = Stream(name)
    # The stream alone says what it is: FORCE_COLOR, which notebooks and build servers set, made a live display on a
    # pipe, with codes that nobody reads, and that hung.  In a notebook rich would make a result of every line.
    usual: dict[str, Any] = {"force_terminal": stream.isatty(), "force_jupyter": False}
    return Console(file=cast(TextIO, stream), markup=False, emoji=False, highlight=False, **(usual | options))


def tell(line: str, name: str = "stdout") -> None:
    """Print a line that may be missed: where standard output takes nothing, standard error hears of it once."""
    try:
        make_console(name).print(line, soft_wrap=True)
    except OutputError as problem:
        if name == "stdout":
            tell(f"{problem}; the command goes on without", "stderr")


def _silence(stream: TextIO) -> None:
    """Let a stream that takes nothing lead nowhere: what it still holds would be an error again when Python ends."""
    with suppress(OSError, ValueError):
        number = stream.fileno()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), number)
