"""Whether a data set gives the same sample whenever it is read, and a summary of what it gives.

Does not know: batches, groups, who reads what.

The first stage reads the inputs of a batch and the last one its targets, later and often in another process.  A data
set that draws from a generator of its own would give them samples of different draws, and a run of the same seed others
again.  Reading a few samples twice shows it; checksums in reports find the rest, such as a file that is written while
it is read.  A data set with a generator of its own is refused also where one unit reads everything and no pair could
fall apart: two runs, or two engines, would still train on different data.

A stream is read by one unit a group, so one that gives other samples when it is gone through again is told of; it is
refused where there are several groups, whose shares would not be parts of the same samples.

NumPy is not patched to give ``np.random.default_rng()`` keys: a refusal names a remedy of one line, and what is not
patched does not break.
"""

import hashlib
import warnings
from typing import Any

import torch
from torch.utils.data import Dataset

from stalegrid.data.passes import Passes, is_stream
from stalegrid.data.readings import reading_of
from stalegrid.data.sources import ArraySource, Source, bytes_of, source_of
from stalegrid.errors import DataError
from stalegrid.objects import tensors_in

READ_TWICE = 8
"""Samples that are enough to find a generator that turns one image in two: it would be missed once in 256 times."""

SUMMARISED = 16
"""Samples that a fingerprint looks at."""


def check_repeats(dataset: Dataset[Any], what: str, seed: int) -> None:
    """Read some samples, of two epochs, twice and in another order.

    Args:
        dataset: as for :class:`~stalegrid.data.Batches`.
        what: names it in the message.
        seed: keys the draws.

    Raises:
        DataError: a sample differs from what it was before, or cannot be read.
    """
    source = _source(dataset, seed)
    if isinstance(source, ArraySource):
        return
    keys = [(number % 2, index) for number, index in enumerate(_spread(source.size, READ_TWICE))]
    first = {key: _digest(source, *key) for key in keys}
    again = _source(dataset, seed)  # which has kept nothing
    for epoch, index in reversed(keys):
        if _digest(again, epoch, index) != first[epoch, index]:
            raise DataError(
                f"the {what} gives another sample when it is read again (sample: {index}, epoch: {epoch}), and stages "
                "and processes read by themselves; draw from the global generators of torch, NumPy or Python, which "
                "are set for every sample, or seed a generator by them, as in "
                "np.random.default_rng(np.random.randint(2**31))"
            )


def check_stream(dataset: Dataset[Any], seed: int, groups: int) -> None:
    """Read the first samples of a stream twice; tell of one that gives others.

    Args:
        dataset: that can only be gone through.
        seed: keys the draws.
        groups: that share its samples.

    Raises:
        DataError: samples differ from what they were before, and there are several groups; or one cannot be read.
    """
    once, again = (_beginning(dataset, seed, READ_TWICE) for _ in range(2))
    if once == again:
        return
    found = (
        "the stream gives other samples when it is gone through again (looked at: its first "
        f"{READ_TWICE}, under the same keys)"
    )
    remedy = (
        "let __iter__ begin with the first sample every time, and draw from the global generators of torch, NumPy or "
        "Python, which are set for every sample"
    )
    if groups > 1:
        raise DataError(f"{found}, and every group goes through it for its share (groups: {groups}); {remedy}")
    warnings.warn(
        f"{found}: what was looked at before the run may be lost to it, and another run or engine trains on other "
        f"data; if that is not meant, {remedy}",
        stacklevel=2,
    )


def fingerprint(dataset: Dataset[Any] | None) -> str:
    """Summarise a data set: its size, its order and some of its samples, drawn alike in every process."""
    if dataset is None:
        return "none"
    if is_stream(dataset):
        once, again = (_beginning(dataset, 0, SUMMARISED) for _ in range(2))
        # One that does not repeat cannot be held against that of another process.
        return ":".join(["stream", *(once if once == again else ())])
    source = _source(dataset, 0)
    reading = reading_of(dataset)
    order = hashlib.blake2b(bytes_of(reading.order.indices(source.size, 0, 0)), digest_size=16).hexdigest()
    samples = [_digest(source, 0, index) for index in _spread(source.size, SUMMARISED)]
    return ":".join([f"{source.size} {order} {reading.drop_last}", *samples])


def _beginning(dataset: Dataset[Any], seed: int, number: int) -> list[str]:
    """Return what the first samples of a stream are, as digests."""
    samples: Any = Passes(dataset, seed).first(number)  # a list is a data set
    source = _source(samples, seed)
    return [_digest(source, 0, index) for index in range(source.size)]


def _source(dataset: Dataset[Any], seed: int) -> Source:
    return source_of(reading_of(dataset), seed=seed, augment=None, dtype=torch.float64)


def _spread(size: int, number: int) -> list[int]:
    """Return some indices from the first to the last."""
    return sorted({i * (size - 1) // max(1, number - 1) for i in range(number)}) if size else []


def _digest(source: Source, epoch: int, index: int) -> str:
    seen, indices = hashlib.blake2b(digest_size=16), torch.tensor([index])
    for part in (*source.inputs(epoch, indices), *tensors_in(source.targets(epoch, indices))):
        seen.update(f"{part.dtype}{tuple(part.shape)}".encode())
        seen.update(bytes_of(part))
    return seen.hexdigest()
