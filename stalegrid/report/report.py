"""The report of a run: one page of HTML in the run's folder.

Does not know: what the page says.
"""

from pathlib import Path

from stalegrid.report.pictures import check_pictures
from stalegrid.report.told import read_told
from stalegrid.written import write_text

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write the report of a run, finished or not, into its folder.

    Args:
        folder: of the run.

    Returns:
        The file, which needs no other file and no network.

    Raises:
        ConfigError: the folder is of no run, a file in it cannot be read, or matplotlib is missing.
    """
    check_pictures("a report")
    # Only now: it loads matplotlib, which may be missing.
    from stalegrid.report.sections import report

    content = report(read_told(folder))
    path = folder / REPORT
    write_text(path, content)
    return path
