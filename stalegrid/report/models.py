"""The mean model that a run has left, in one file or in those of its stages.

Does not know: what it is the model of.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stalegrid.errors import DataError
from stalegrid.observe import BEST, INDEX, MODEL, SUMMARY, UNSAVED, UNSAVED_BEST, UNSAVED_INDEX, VERSION
from stalegrid.written import COUNT, TEXT, Kind, exists, read_json, settle


def read_model(folder: Path, which: str = MODEL) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the mean model of a run: a state dict of the original model, and the tensors that it leaves out.

    Args:
        folder: of the run.
        which: of its models, by the name of the file.

    Raises:
        DataError: a file cannot be read, or holds something else.
    """
    if which == MODEL and not exists(folder / MODEL) and exists(folder / INDEX):
        rest = folder / UNSAVED_INDEX
        return dict(_of_parts(folder, INDEX)), dict(_of_parts(folder, UNSAVED_INDEX)) if exists(rest) else {}
    rest = folder / {MODEL: UNSAVED, BEST: UNSAVED_BEST}[which]
    return dict(_tensors(folder / which)), dict(_tensors(rest)) if exists(rest) else {}


def norm_of(folder: Path) -> float | None:
    """Return the L2 norm of the mean model of a run, which need not fit into memory; None where there is none yet.

    Raises:
        DataError: a file cannot be read, or holds something else.
    """
    if exists(folder / MODEL):
        named = _tensors(folder / MODEL)
    elif exists(folder / INDEX):
        named = _of_parts(folder, INDEX)
    else:
        return None
    tensors = (tensor for _, tensor in named if tensor.is_floating_point())
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def interrupted_whole(folder: Path) -> bool:
    """Return whether a run that was interrupted left a summary and the mean model that it speaks of.

    Raises:
        OutputError: what was being written cannot be put into its place.
    """
    settle(folder)
    if not exists(folder / SUMMARY):
        return False
    version = str(read_json(folder / SUMMARY, {VERSION: COUNT})[VERSION])
    if exists(folder / INDEX):
        return bool(read_json(folder / INDEX, _INDEX)["metadata"][VERSION] == version)
    if not exists(folder / MODEL):
        return False
    with safe_open(folder / MODEL, framework="pt") as file:
        return bool((file.metadata() or {}).get(VERSION) == version)


def _of_parts(folder: Path, index: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that an index names, one after the other."""
    where: dict[str, str] = read_json(folder / index, _INDEX)["weight_map"]
    for name in sorted(set(where.values())):
        yield from _tensors(folder / Path(name).name, [key for key, own in where.items() if own == name])


def _tensors(path: Path, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield those of a file that are named, or all, one after the other."""
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys() if names is None else names:
                yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as problem:
        raise DataError(f"the file does not hold the tensors that it should (file: {path}): {problem}") from problem


_NAME = Kind("a text", lambda name: isinstance(name, str))

_INDEX: dict[Any, Any] = {"metadata": {VERSION: TEXT}, "weight_map": {_NAME: TEXT}}
