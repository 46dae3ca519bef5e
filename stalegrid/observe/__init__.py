"""What is told while a run goes on, and where it is written: records, and the places that take them.

Does not know: agents, engines.
"""

from stalegrid.observe.averaging import WeightAverage
from stalegrid.observe.best import Best
from stalegrid.observe.callbacks import Callback, Stop, find_callbacks, own_callbacks, own_copies
from stalegrid.observe.console import cursor_kept
from stalegrid.observe.diagnosed import DIAGNOSIS
from stalegrid.observe.displays import in_notebook
from stalegrid.observe.divergence import JS_DISTANCE, Divergence, class_scores
from stalegrid.observe.folder import (
    BEST,
    CONFIG,
    FAILURE,
    LIMITS,
    METRICS,
    MODEL,
    SUMMARY,
    UNITS,
    UNSAVED,
    UNSAVED_BEST,
    VERSION,
)
from stalegrid.observe.loggers import Logger, find_loggers
from stalegrid.observe.means import SUMS, MeanReport, measurement
from stalegrid.observe.metrics import PREFIX, Measure, Metric, Metrics
from stalegrid.observe.mlflow import MLflow
from stalegrid.observe.naming import names
from stalegrid.observe.numbers import TOLD, over_units
from stalegrid.observe.parts import INDEX, UNSAVED_INDEX, Item, Saved, forget_parts, indices, save_part
from stalegrid.observe.perplexity import Perplexity
from stalegrid.observe.records import (
    BYTES_SENT,
    TOTAL,
    VIRTUAL,
    Loss,
    Nowhere,
    Record,
    Report,
    Sink,
    Tally,
    count_correct,
    summarise,
)
from stalegrid.observe.results import announce, make_sink, open_folder
from stalegrid.observe.settings import OutputSettings
from stalegrid.observe.sharing import by_unit, shares, waits
from stalegrid.observe.sinks import Dated
from stalegrid.observe.state import check_saved, restore, saved, unsaved
from stalegrid.observe.stopping import EarlyStopping
from stalegrid.observe.stream import Stream, make_console, tell
from stalegrid.observe.summed import Staleness, Summed
from stalegrid.observe.tables import plain, wide
from stalegrid.observe.takes import Takes
from stalegrid.observe.timeline import Recorder, Span, Timeline
from stalegrid.observe.trace import TRACE, name_of_trace, read_trace, write_trace
from stalegrid.observe.wandb import WeightsAndBiases

__all__ = [
    "BEST",
    "BYTES_SENT",
    "CONFIG",
    "DIAGNOSIS",
    "FAILURE",
    "INDEX",
    "JS_DISTANCE",
    "LIMITS",
    "METRICS",
    "MODEL",
    "PREFIX",
    "SUMMARY",
    "SUMS",
    "TOLD",
    "TOTAL",
    "TRACE",
    "UNITS",
    "UNSAVED",
    "UNSAVED_BEST",
    "UNSAVED_INDEX",
    "VERSION",
    "VIRTUAL",
    "Best",
    "Callback",
    "Dated",
    "Divergence",
    "EarlyStopping",
    "Item",
    "Logger",
    "Loss",
    "MLflow",
    "MeanReport",
    "Measure",
    "Metric",
    "Metrics",
    "Nowhere",
    "OutputSettings",
    "Perplexity",
    "Record",
    "Recorder",
    "Report",
    "Saved",
    "Sink",
    "Span",
    "Staleness",
    "Stop",
    "Stream",
    "Summed",
    "Takes",
    "Tally",
    "Timeline",
    "WeightAverage",
    "WeightsAndBiases",
    "announce",
    "by_unit",
    "check_saved",
    "class_scores",
    "count_correct",
    "cursor_kept",
    "find_callbacks",
    "find_loggers",
    "forget_parts",
    "in_notebook",
    "indices",
    "make_console",
    "make_sink",
    "measurement",
    "name_of_trace",
    "names",
    "open_folder",
    "over_units",
    "own_callbacks",
    "own_copies",
    "plain",
    "read_trace",
    "restore",
    "save_part",
    "saved",
    "shares",
    "summarise",
    "tell",
    "unsaved",
    "waits",
    "wide",
    "write_trace",
]
