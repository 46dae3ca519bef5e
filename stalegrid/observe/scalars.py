"""What of a record is a curve: its numbers by the names under which loggers draw them.

Does not know: loggers.
"""

from stalegrid.observe.divergence import JS_DISTANCE
from stalegrid.observe.metrics import PREFIX
from stalegrid.observe.numbers import TOLD
from stalegrid.observe.records import BYTES_SENT, Record


def step(record: Record) -> int:
    """Return the number of updates that a record is of."""
    found: int = record["update"] if record["kind"] == "train" else record["version"]
    return found


def scalars(record: Record) -> dict[str, float]:
    """Return the numbers of a record that are numbers.

    Args:
        record: as a line of ``metrics.jsonl``.
    """
    found = _of_report(record) if record["kind"] == "train" else _of_evaluation(record)
    return {name: value for name, value in found.items() if value is not None}


def _of_report(record: Record) -> dict[str, float | None]:
    found = {"train/loss": record["loss"], "train/accuracy": record["train_accuracy"], "train/lr": record["lr"]}
    for unit, seen in record["staleness"].items():
        found |= {f"staleness/{unit}": seen["mean"], f"gap/{unit}": seen["gap"], f"held/{unit}": seen.get("held")}
    for unit, told in record.get(TOLD, {}).items():
        found |= {f"{name}/{unit}": value for name, value in told.items()}
    return found | {f"sent/{name}": nbytes for name, nbytes in record.get(BYTES_SENT, {}).items()}


def _of_evaluation(record: Record) -> dict[str, float | None]:
    names = (*(name for name in record if name.startswith(PREFIX)), "consensus_distance", JS_DISTANCE)
    return {f"test/{name}": record.get(name) for name in names}
