"""What of a record is a curve: its numbers by the names under which loggers draw them.

Does not know: loggers.
"""

from stalegrid.observe.diagnosed import DIAGNOSIS
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
    of = {"train": _of_report, DIAGNOSIS: _of_diagnosis}.get(record["kind"], _of_evaluation)
    found = of(record)
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


def _of_diagnosis(record: Record) -> dict[str, float | None]:
    found = {name: record[name] for name in ("gradient_square", "gradient_square_average", "rate_limit")}
    parts = [(name, record[name] or {}) for name in ("noise", "consensus")]
    parts += [(f"stage {k}", stage) for k, stage in enumerate(record["stages"])]
    for part, numbers in parts:
        found |= {f"{part}/{what}": value for what, value in numbers.items() if not isinstance(value, str | bool)}
    return {f"{DIAGNOSIS}/{name}": value for name, value in found.items()}
