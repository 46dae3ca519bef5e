"""The report of a run, or of two side by side: one page of HTML, in a run's folder unless another place is named.

Does not know: what the page says.
"""

from pathlib import Path

from stalegrid.errors import ConfigError
from stalegrid.report.pictures import check_pictures
from stalegrid.report.told import read_told
from stalegrid.written import write_text

REPORT = "report.html"


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run, finished or not.

    Args:
        folder: of the run.
        out: file to write; ``report.html`` in the folder if left out.

    Returns:
        The file, which needs no other file and no network.

    Raises:
        ConfigError: the folder is of no run, a file in it cannot be read, or matplotlib is missing.
    """
    check_pictures("a report")
    # Only now: it loads matplotlib, which may be missing.
    from stalegrid.report.sections import report

    return _written(report(read_told(folder)), folder / REPORT if out is None else out)


def write_comparison(first: Path, second: Path, out: Path | None = None) -> Path:
    """Write a page that shows two runs side by side, of whichever kinds.

    Args:
        first: folder of one run, called A.
        second: folder of the other, called B.
        out: file to write; ``report-beside-NAME.html`` in the first folder if left out, NAME that of the second.

    Returns:
        The file, which needs no other file and no network.

    Raises:
        ConfigError: both are the same folder; else as :func:`write_report`.
    """
    check_pictures("a report")
    from stalegrid.report.compared import compared

    runs = read_told(first), read_told(second)
    if first.resolve() == second.resolve():
        raise ConfigError(f"both are the same run (folder: {first}); name two, or one for its report alone")
    path = first / f"report-beside-{second.resolve().name}.html" if out is None else out
    return _written(compared(runs, (str(first), str(second))), path)


def _written(content: str, path: Path) -> Path:
    write_text(path, content)
    return path
