"""The records of a run as lines of JSON.

Does not know: what records say.
"""

from pathlib import Path

from stalegrid.observe.records import Record
from stalegrid.written import open_new, to_json, writing


class Jsonl:
    """Writes records, line by line.

    Args:
        path: of the file, which is made now: that it is there says that a run has begun.

    Raises:
        OutputError: by every method too, the file cannot be written; what was written before stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_new(path)

    def start(self, settings: Record) -> None:
        """Write nothing: settings have a file of their own."""

    def log(self, record: Record) -> None:
        """Append a line."""
        with writing(self._path):
            self._file.write(to_json(record) + "\n")

    def finish(self, summary: Record) -> None:
        """Close the file, which is whole at any moment."""
        with writing(self._path):
            self._file.close()
