"""The records of a run as lines of JSON.

Does not know: what records say.
"""

import os
from pathlib import Path

from stalegrid.errors import DataError
from stalegrid.observe.records import Record
from stalegrid.written import open_again, open_new, read_lines, to_json, writing


class Jsonl:
    """Writes records, line by line.

    Args:
        path: of the file, which is made now: that it is there says that a run has begun.
        again: whether it is there already, of a run that goes on.

    Raises:
        OutputError: by every method too, the file cannot be written; what was written before stays.
    """

    def __init__(self, path: Path, *, again: bool = False) -> None:
        self._path = path
        self._file = open_again(path) if again else open_new(path)

    def start(self, settings: Record) -> None:
        """Write nothing: settings have a file of their own."""

    def log(self, record: Record) -> None:
        """Append a line."""
        with writing(self._path):
            self._file.write(to_json(record) + "\n")

    def position(self) -> int:
        """Return the bytes of the file, all of which are on the disk now."""
        with writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def cut(self, position: int) -> list[Record]:
        """Forget what lies behind a position, and return the records before it.

        Raises:
            DataError: the file is shorter.
        """
        size = self._path.stat().st_size
        if size < position:
            raise DataError(
                f"the metrics of the run are shorter than when it was saved (file: {self._path}, bytes: {size}, then: "
                f"{position}); put the file back"
            )
        with writing(self._path):
            self._file.truncate(position)
        return read_lines(self._path, {})

    def finish(self, summary: Record) -> None:
        """Close the file, which is whole at any moment."""
        with writing(self._path):
            self._file.close()
