"""The mean model that a run has left, in one file or in those of its stages.

Does not know: what it is the model of.
"""

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from stalegrid.errors import DataError
from stalegrid.observe import BEST, INDEX, MODEL, SUMMARY, UNSAVED, UNSAVED_BEST, UNSAVED_INDEX, VERSION
from stalegrid.written import COUNT, TEXT, Kind, exists, read_json


def read_model(folder: Path, which: str = MODEL) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the mean model of a run: a state dict of the original model, and the tensors that it leaves out.

    Args:
        folder: of the run.
        which: of its models, by the name of the file.

    Raises:
        DataError: a file cannot be read, or holds something else.
    """
    if which == MODEL and not exists(folder / MODEL) and exists(folder / INDEX):
        return _of_parts(folder, INDEX), _of_parts(folder, UNSAVED_INDEX) if exists(folder / UNSAVED_INDEX) else {}
    rest = folder / {MODEL: UNSAVED, BEST: UNSAVED_BEST}[which]
    return _tensors(folder / which), _tensors(rest) if exists(rest) else {}


def norm_of(folder: Path) -> float | None:
    """Return the L2 norm of the mean model of a run; None where there is none yet.

    Raises:
        DataError: a file cannot be read, or holds something else.
    """
    if not exists(folder / MODEL) and not exists(folder / INDEX):
        return None
    tensors = (tensor for tensor in read_model(folder)[0].values() if tensor.is_floating_point())
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def interrupted_whole(folder: Path) -> bool:
    """Return whether a run that was interrupted left a summary and the mean model that it speaks of."""
    if not exists(folder / SUMMARY):
        return False
    version = str(read_json(folder / SUMMARY, {VERSION: COUNT})[VERSION])
    if exists(folder / INDEX):
        return bool(read_json(folder / INDEX, _INDEX)["metadata"][VERSION] == version)
    if not exists(folder / MODEL):
        return False
    with safe_open(folder / MODEL, framework="pt") as file:
        # They are written one after the other.
        return bool((file.metadata() or {}).get(VERSION) == version)


def _of_parts(folder: Path, index: str) -> dict[str, Tensor]:
    """Read the tensors that an index names, a file at a time."""
    where: dict[str, str] = read_json(folder / index, _INDEX)["weight_map"]
    found = {name: _tensors(folder / Path(name).name) for name in sorted(set(where.values()))}
    return {key: found[name][key] for key, name in where.items()}


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as problem:
        raise DataError(f"the file holds no tensors that can be read (file: {path}): {problem}") from problem


_NAME = Kind("a text", lambda name: isinstance(name, str))

_INDEX: dict[Any, Any] = {"metadata": {VERSION: TEXT}, "weight_map": {_NAME: TEXT}}
