"""Data as a pure function of (seed, group, batch), and readers of a few official data sets.

Does not know: stages, processes, models.

:class:`Batches` says what each group trains on at each batch and :class:`Slices` walks a data set in order;
both take any map-style data set, or a ``DataLoader``, and read an :class:`ArrayDataset` fastest.  :class:`Stream`
has the batches of data that can only be gone through.  :func:`feed` hands batches out in a process of a run;
:class:`Later` is a data set that processes open only where they read it.
"""

from stalegrid.data.arrays import ArrayDataset, Normalise
from stalegrid.data.augment import CropAndFlip
from stalegrid.data.batches import Batches, Slices
from stalegrid.data.cifar10 import load_cifar10
from stalegrid.data.digits import load_digits
from stalegrid.data.epochs import Division
from stalegrid.data.feeds import Feed, Readers, Unread, feed
from stalegrid.data.later import Later, inside, opened
from stalegrid.data.mnist import load_mnist
from stalegrid.data.named import load
from stalegrid.data.numbers import Counted, Numbers
from stalegrid.data.owned import Owned
from stalegrid.data.padding import pad_to
from stalegrid.data.passes import is_stream
from stalegrid.data.readings import Collate, Reading, check_size, given, reading_of
from stalegrid.data.repeating import check_repeats, check_stream
from stalegrid.data.settings import TrainingSettings
from stalegrid.data.shapes import Example, examples
from stalegrid.data.sources import bytes_of
from stalegrid.data.splits import EVEN, Dealt
from stalegrid.data.streams import Stream

__all__ = [
    "EVEN",
    "ArrayDataset",
    "Batches",
    "Collate",
    "Counted",
    "CropAndFlip",
    "Dealt",
    "Division",
    "Example",
    "Feed",
    "Later",
    "Normalise",
    "Numbers",
    "Owned",
    "Readers",
    "Reading",
    "Slices",
    "Stream",
    "TrainingSettings",
    "Unread",
    "bytes_of",
    "check_repeats",
    "check_size",
    "check_stream",
    "examples",
    "feed",
    "given",
    "inside",
    "is_stream",
    "load",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "opened",
    "pad_to",
    "reading_of",
]
