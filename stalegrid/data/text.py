"""A text as characters: each sample is some of them in a row, and its targets are the next ones.

Does not know: training, models.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stalegrid.errors import ConfigError, DataError

TRAIN = 0.9
"""Share of a text that is trained on; the rest, its end, is for testing."""


class Text(Dataset[tuple[Tensor, Tensor]]):
    """Characters of a text in samples that do not overlap.

    Args:
        codes: int64 (N,), the place of each character in ``characters``.
        characters: all that there are, in order.
        context: T, characters of a sample.

    Raises:
        DataError: the text is too short for one sample.
    """

    def __init__(self, codes: Tensor, characters: str, context: int) -> None:
        if len(codes) <= context:
            raise DataError(f"the text is too short for one sample (characters: {len(codes)}, context: {context})")
        self.codes = codes
        self.characters = characters
        self.context = context

    @property
    def classes(self) -> int:
        """How many characters there are to tell apart."""
        return len(self.characters)

    def __len__(self) -> int:
        return (len(self.codes) - 1) // self.context

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return T characters and those that follow each of them, both int64 (T,)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.context
        return self.codes[start : start + self.context], self.codes[start + 1 : start + self.context + 1]


def load_text(folder: Path, context: int) -> tuple[Text, Text]:
    """Read the text of a folder, and part it into a training and a test set.

    Args:
        folder: with one file ``*.txt``, in UTF-8.
        context: T, characters of a sample.

    Raises:
        ConfigError: the context is no length.
        DataError: there is no such file or there are several, it is no text, or too short.
    """
    if context < 1:
        raise ConfigError(f"a sample has at least one character (context: {context})")
    if not folder.is_dir():
        raise DataError(f"there is no such folder (folder: {folder}); it should hold one file *.txt")
    found = sorted(folder.glob("*.txt"))
    if len(found) != 1:
        shown = ", ".join(path.name for path in found) or "none"
        raise DataError(f"a text is read from the one file *.txt of a folder (folder: {folder}, files: {shown})")
    try:
        text = found[0].read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"the text cannot be read (file: {found[0]}): {problem}") from problem
    characters = "".join(sorted(set(text)))
    codes = torch.tensor([*map({c: i for i, c in enumerate(characters)}.__getitem__, text)], dtype=torch.int64)
    cut = int(TRAIN * len(codes))
    return Text(codes[:cut], characters, context), Text(codes[cut:], characters, context)
