"""What a finished run looks like: one page, from what its folder tells.

Does not know: how runs train.
"""

from stalegrid.report.pictures import check_pictures
from stalegrid.report.report import write_report
from stalegrid.report.told import interrupted_whole, read_config, read_metrics, read_model, read_summary

__all__ = [
    "check_pictures",
    "interrupted_whole",
    "read_config",
    "read_metrics",
    "read_model",
    "read_summary",
    "write_report",
]
