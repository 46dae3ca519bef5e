"""A model and the state of its training in two files, of safetensors and JSON, under the model's own names.

Does not know: who trains it, plans.

::

    FILE.safetensors              the state dict of the model
    FILE.optimizer.safetensors    tensors of the optimizer's state; its metadata has all else, as JSON

The metadata are one text, ``training``: a tree as :func:`stalegrid.written.parted` makes it, with the fields of
:class:`stalegrid.stages.NamedState` and with ``unsaved``, tensors of the model that a state dict leaves out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stalegrid.checkpoints import Checkpoint, read_checkpoint
from stalegrid.errors import ConfigError, DataError
from stalegrid.objects import copied, joined, parted
from stalegrid.observe import MODEL, restore, saved, unsaved
from stalegrid.stages import NamedState
from stalegrid.transfer.reading import read_whole
from stalegrid.transfer.whole import Whole, fill_whole
from stalegrid.written import is_file, replace, to_json

_END = ".safetensors"
_TEXT = "training"


@dataclass(frozen=True)
class Exported:
    """What the files hold.

    Args:
        state: dict of the model.
        unsaved: tensors of the model that are in no state dict.
        training: state of the optimizer and its schedule; None where there is the model alone.
        version: updates that were made.
    """

    state: dict[str, Tensor]
    unsaved: dict[str, Tensor]
    training: NamedState | None
    version: int


def optimizer_file(path: Path) -> Path:
    """Return the second file's path.

    Raises:
        ConfigError: the first one's has another end.
    """
    if path.suffix != _END:
        raise ConfigError(f"a model is exported to a file whose name ends in {_END} (file: {path}); name it so")
    return path.with_suffix(f".optimizer{_END}")


def write_exported(path: Path, exported: Exported) -> None:
    """Write both files, each whole at any moment, the model last.

    Raises:
        ConfigError: the path has another end.
        OutputError: a file cannot be written.
    """
    other = optimizer_file(path)
    assert exported.training is not None
    tree = {"unsaved": exported.unsaved, "version": exported.version, "named": exported.training.plain()}
    plain, tensors = parted(tree)
    replace(other, lambda part: save_file(tensors, part, {_TEXT: to_json(plain)}), synced=True)
    replace(path, lambda part: save_file(exported.state, part, {"version": str(exported.version)}), synced=True)


def read_exported(path: Path) -> Exported:
    """Read both files, or the model alone where there is no other file.

    Raises:
        ConfigError: the path has another end.
        DataError: a file cannot be read, or holds something else.
    """
    other = optimizer_file(path)
    state, _ = _read(path)
    if not is_file(other):
        return Exported(state, {}, None, 0)
    tensors, metadata = _read(other)
    try:
        found: Any = joined(json.loads(metadata[_TEXT]), tensors)
        return Exported(state, found["unsaved"], NamedState.of(found["named"]), found["version"])
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as problem:
        raise DataError(
            f"the file has no state of an optimizer (file: {other}): {problem}; export it again"
        ) from problem


def restore_exported(model: nn.Module, path: Path) -> Exported:
    """Give a model what the files have of it, and return what they hold.

    Raises:
        ConfigError: it is another model.
        DataError: a file cannot be read.
    """
    found, own = read_exported(path), model.state_dict()
    other = [name for name, tensor in found.state.items() if name in own and own[name].dtype != tensor.dtype]
    if other:
        kinds = f"{found.state[other[0]].dtype}, here: {own[other[0]].dtype}"
        raise ConfigError(f"the file is of another type (file: {path}, tensor: {other[0]}, {kinds}); name its dtype")
    try:
        restore(model, found.state, found.unsaved)
    except (RuntimeError, KeyError) as problem:
        raise ConfigError(f"the file is of another model (file: {path}): {' '.join(str(problem).split())}") from problem
    return found


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except (OSError, SafetensorError) as problem:
        raise DataError(f"the file holds no tensors that can be read (file: {path}): {problem}") from problem


def export(run: Path | str, to: Path | str, *, group: int | None = None, model: nn.Module | None = None) -> int:
    """Write the model of a checkpoint and the state of its training under the model's own names, for a plain loop.

    Args:
        run: folder of a run that has checkpoints, or of one of them.
        to: file of the model; that of the optimizer lies beside it.
        group: whose; None for the mean over all groups.
        model: that was trained; only needed where the checkpoint does not have all of it, and no file of the run.

    Returns:
        The updates that were made.

    Raises:
        ConfigError: there is no such group, it is another model, or what is not there is needed.
        DataError: a file cannot be read.
        OutputError: a file cannot be written.
    """
    checkpoint, path = read_checkpoint(Path(run)), Path(to)
    optimizer_file(path)
    whole = read_whole(checkpoint, group)
    if model is None:
        state, rest = _named(checkpoint, whole)
    else:
        own = copied(model)
        fill_whole(own, whole, str(checkpoint.folder))
        state, rest = saved(own), unsaved(own)
    write_exported(path, Exported(state, rest, whole.training, whole.version))
    return whole.version


def _named(checkpoint: Checkpoint, whole: Whole) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state dict of a model that is not there, and what is in none."""
    said = checkpoint.manifest["model"]
    if whole.unaveraged:
        raise _needed(checkpoint, whole.unaveraged[0], "has no mean over groups")
    known = {name: tensor.clone().contiguous() for name, tensor in whole.tensors.items()}
    state: dict[str, Tensor] = {}
    for key in said["state"]:
        name = said["names"].get(key, key)
        found = known.get(name, _still(checkpoint, key) if name in said["still"] else None)
        if found is None:
            raise _needed(checkpoint, key, "is not in the checkpoint")
        state[key] = found.clone() if name != key else found  # tied ones share no memory in a file
    kept = {said["names"].get(key, key) for key in said["state"]}
    return state, {name: tensor for name, tensor in known.items() if name not in kept}


def _still(checkpoint: Checkpoint, key: str) -> Tensor | None:
    """Return a tensor that training leaves alone, of the model that the run has written."""
    path = checkpoint.run / MODEL
    return _read(path)[0].get(key) if is_file(path) else None


def _needed(checkpoint: Checkpoint, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"a tensor {why} (name: {name}, checkpoint: {checkpoint.folder}); give the model: stalegrid.export(RUN, FILE, "
        "model=MODEL), or a group where several have other ones"
    )
