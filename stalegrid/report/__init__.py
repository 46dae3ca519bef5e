"""What finished runs look like: one page of a run or of two, from what their folders tell.

Does not know: how runs train.
"""

from stalegrid.report.models import interrupted_whole, read_model
from stalegrid.report.pictures import check_pictures
from stalegrid.report.report import write_comparison, write_report
from stalegrid.report.told import read_config, read_metrics, read_summary

__all__ = [
    "check_pictures",
    "interrupted_whole",
    "read_config",
    "read_metrics",
    "read_model",
    "read_summary",
    "write_comparison",
    "write_report",
]
