"""The label of every sample, where that can be said without reading the samples.

Does not know: what labels are for, groups, batches.

A label is read where data sets keep them, and some samples are read to see that they have these very labels: what a
``target_transform`` makes of them, or an attribute that means something else, would deal samples out by another number.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from stalegrid.errors import ConfigError, DataError
from stalegrid.seeds import drawing

LOOKED_AT = 16
"""Samples that are read, from the first to the last."""

NAMES = ("targets", "labels")
"""What data sets call the labels of their samples."""

REMEDY = (
    "give the data set an attribute targets with a whole number for each sample, as those of torchvision have, or take "
    "split even"
)


def labels_of(dataset: Dataset[Any], samples: int) -> Tensor:
    """Return the label of every sample of a data set, int64 (samples,).

    Args:
        dataset: an ``ArrayDataset``, a ``TensorDataset``, one with an attribute ``targets`` or ``labels``, or a
            ``Subset`` or ``ConcatDataset`` of such; its items are pairs (input, label), or mappings with ``labels``.
        samples: that it has.

    Raises:
        ConfigError: it has no labels that can be read so, or they are not a whole number a sample.
        DataError: samples have others.
    """
    labels = _whole(_kept(dataset), dataset, samples)
    for index in sorted({i * (samples - 1) // (LOOKED_AT - 1) for i in range(LOOKED_AT)}) if samples else ():
        found = _seen(dataset, index)
        if found != int(labels[index]):
            raise DataError(
                f"the labels of the data set are not those of its samples (data: {type(dataset).__name__}, sample: "
                f"{index}, its target: {found}, its label: {int(labels[index])}); {REMEDY}"
            )
    return labels


def _kept(dataset: Any) -> Any:
    """Return the labels as a data set keeps them."""
    if isinstance(dataset, Subset):
        return torch.as_tensor(_kept(dataset.dataset))[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if isinstance(dataset, ConcatDataset):
        return torch.cat([torch.as_tensor(_kept(part)) for part in dataset.datasets])
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors[1]
    for found in _named(dataset):
        return found
    raise ConfigError(
        f"samples are dealt to groups by their labels, which this data set does not have at hand (data: "
        f"{type(dataset).__name__}); {REMEDY}"
    )


def _named(dataset: Any) -> Iterator[Any]:
    return (getattr(dataset, name) for name in NAMES if getattr(dataset, name, None) is not None)


def _whole(found: Any, dataset: Any, samples: int) -> Tensor:
    """Return labels as whole numbers, one a sample."""
    try:
        labels = torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise ConfigError(
            f"the labels of the data set are no numbers (data: {type(dataset).__name__}): {problem}; {REMEDY}"
        ) from problem
    if labels.is_floating_point() or labels.is_complex() or tuple(labels.shape) != (samples,):
        raise ConfigError(
            f"samples are dealt to groups by their labels, one whole number a sample (data: {type(dataset).__name__}, "
            f"labels: {str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}, samples: {samples}); a text or "
            "a regression has none: take split even"
        )
    return labels.to(torch.int64)


def _seen(dataset: Any, index: int) -> int | None:
    """Return the label that a sample has when it is read; None where it has none."""
    try:
        with drawing(torch.device("cpu"), 0, "sample", 0, index):
            item = dataset[index]
        target = item["labels"] if isinstance(item, Mapping) else item[1]
        return int(torch.as_tensor(target))
    except Exception:  # the data set is the user's: anything can be raised, and whatever it is, this is no label
        return None
