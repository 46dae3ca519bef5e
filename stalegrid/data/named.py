"""The data sets that go by a name on the command line.

Does not know: how each is read.
"""

from collections.abc import Callable
from pathlib import Path

from stalegrid.data.arrays import ArrayDataset
from stalegrid.data.cifar10 import load_cifar10
from stalegrid.data.digits import load_digits
from stalegrid.data.mnist import load_mnist
from stalegrid.data.text import Text, load_text
from stalegrid.errors import ConfigError

Named = tuple[ArrayDataset, ArrayDataset] | tuple[Text, Text]
"""A training and a test set."""


def load(name: str, folder: Path | None, context: int = 64) -> Named:
    """Load a data set by its name.

    Args:
        name: ``digits``, ``cifar10``, ``mnist`` or ``text``.
        folder: where the files are; ``digits`` needs none.
        context: of a text, characters of a sample.

    Returns:
        The training and the test set.

    Raises:
        ConfigError: the name is unknown, the folder is needed and not given, or scikit-learn is missing.
        DataError: a file is missing, truncated or holds what it should not.
    """
    match name:
        case "digits":
            return load_digits(train=True), load_digits(train=False)
        case "cifar10":
            return _from_folder(name, load_cifar10, folder)
        case "mnist":
            return _from_folder(name, load_mnist, folder)
        case "text":
            return load_text(_named_folder(name, folder), context)
    raise ConfigError(f"unknown data set {name!r}; there are digits, cifar10, mnist and text; your own is MODULE:NAME")


def _from_folder(
    name: str, read: Callable[[Path, bool], ArrayDataset], folder: Path | None
) -> tuple[ArrayDataset, ArrayDataset]:
    files = _named_folder(name, folder)
    return read(files, True), read(files, False)


def _named_folder(name: str, folder: Path | None) -> Path:
    if folder is None:
        raise ConfigError(f"{name} is read from files; say where they are: --data.folder DIR")
    return folder
