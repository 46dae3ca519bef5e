"""A model in files that its stages write, each what it has, and an index of them, as Hugging Face lays them out.

Does not know: what stages are otherwise, who measures, when.

The names of files say the version, and the index is replaced when all files of one are there: so it names a whole model
at any moment.  Where hosts share no folder, each has the files of its own stages, and the first one the index.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from stalegrid.written import replace

INDEX = "model.safetensors.index.json"
UNSAVED_INDEX = "unsaved.safetensors.index.json"

LEAST, SHARE = 1 << 26, 16
"""A file is made in memory before it is written: so none has more bytes than this, or than this part of its stage."""


class Item(NamedTuple):
    """One tensor of a model."""

    key: str
    """In files."""
    name: str
    """In the model."""
    nbytes: int


@dataclass(frozen=True)
class Saved:
    """What of a model a stage saves.

    Args:
        state: of its state dict.
        rest: that a state dict leaves out.
    """

    state: tuple[Item, ...]
    rest: tuple[Item, ...] = ()

    def files(self, version: int, stage: int) -> Iterator[tuple[str, tuple[Item, ...]]]:
        """Yield the names of its files, each with what it holds.

        Args:
            version: of the weights.
            stage: that saves.
        """
        for kind, items in (("model", self.state), ("unsaved", self.rest)):
            for number, part in enumerate(_parted(items)):
                yield f"{kind}-{version}-stage-{stage}-{number}.safetensors", part


def save_part(folder: Path, version: int, stage: int, saved: Saved, tensors: Mapping[str, Tensor]) -> None:
    """Write what a stage has of a model.

    Args:
        folder: of the run.
        version: of the weights.
        stage: that saves.
        saved: what it saves.
        tensors: by their names in the model.

    Raises:
        OutputError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)  # on another host nobody else has made it
    for name, items in saved.files(version, stage):
        content = {item.key: tensors[item.name].detach().cpu().contiguous() for item in items}
        for again in _again(items):  # safetensors refuses tensors that share memory, such as tied ones
            content[again] = content[again].clone()
        replace(folder / name, lambda part, content=content: save_file(content, part, {"format": "pt"}))  # type: ignore[misc]


def indices(version: int, parts: Sequence[Saved]) -> dict[str, str]:
    """Return, by the name of its file, the text of every index: which file has which tensor.

    Args:
        version: of the weights.
        parts: what each stage has saved.
    """
    files = [found for stage, saved in enumerate(parts) for found in saved.files(version, stage)]
    texts = {}
    for kind, file in (("model", INDEX), ("unsaved", UNSAVED_INDEX)):
        of_kind = [(item, name) for name, items in files for item in items if name.startswith(kind)]
        if kind == "model" or of_kind:
            size, where = sum(item.nbytes for item, _ in of_kind), {item.key: name for item, name in of_kind}
            found = {"metadata": {"total_size": size, "version": str(version)}, "weight_map": where}
            texts[file] = json.dumps(found, indent=2) + "\n"
    return texts


def forget_parts(folder: Path, before: int | None = None, stage: int | str = "*") -> None:
    """Remove files of versions before one, or of all; of one stage, or of all."""
    for kind in ("model", "unsaved"):
        for file in folder.glob(f"{kind}-*-stage-{stage}-*.safetensors"):
            version = file.name.split("-")[1]
            if version.isdecimal() and (before is None or int(version) < before):
                file.unlink(missing_ok=True)


def _again(items: Sequence[Item]) -> Iterator[str]:
    """Yield the keys of tensors that have another one before."""
    known: set[str] = set()
    for item in items:
        if item.name in known:
            yield item.key
        known.add(item.name)


def _parted(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    largest = max(LEAST, sum(item.nbytes for item in items) // SHARE)
    part: list[Item] = []
    for item in items:
        if part and sum(one.nbytes for one in part) + item.nbytes > largest:
            yield tuple(part)
            part = []
        part.append(item)
    if part:
        yield tuple(part)
