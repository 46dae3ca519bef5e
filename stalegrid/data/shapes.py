"""A batch of each shape that there may be: said by what makes batches, or found by reading those of the first epoch.

Does not know: models, stages, what becomes of it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from stalegrid.data.batches import Batches
from stalegrid.data.feeds import Feed, Readers, feed
from stalegrid.data.settings import TrainingSettings
from stalegrid.data.streams import Stream
from stalegrid.errors import ConfigError
from stalegrid.objects import Shapes, Tensors, shapes_of, shown, tensors_in


@dataclass(frozen=True, eq=False)
class Example:
    """A batch of some shape.

    Args:
        inputs: tensors of the model's arguments, each (B, ...).
        targets: what the loss gets beside outputs.
        samples: returns which samples of the data it is made of, int64 (B,).
    """

    inputs: Tensors
    targets: Any
    samples: Callable[[], Tensor]

    def shapes(self, *, targets: bool) -> Shapes:
        """Return its shapes, those of its targets too if they are asked for."""
        return shapes_of(self.inputs) + (shapes_of(tensors_in(self.targets)) if targets else ())


def examples(
    batches: Batches | Stream, training: TrainingSettings, updates: int, *, cut: bool, targets: bool
) -> list[Example]:
    """Return the first batch, and one of every other shape that there may be, if the shape matters.

    Groups with batches of unlike sizes have shapes of their own, and so has the incomplete last batch of an epoch,
    which comes after the others.  They come also where no shape matters, since a model or a loss may not take so few
    samples.

    Args:
        batches: of all groups.
        training: how many shapes there may be, and who reads.
        updates: of the run, which may be shorter than an epoch.
        cut: whether the shape matters.
        targets: whether batches of the same inputs and other targets are of another shape.

    Raises:
        ConfigError: there are more shapes than are allowed, or they cannot be found.
    """
    most = training.shapes
    if most is not None and most < 1:
        raise ConfigError(f"batches have a shape at least (training.shapes: {most}); take 1 or more")
    if isinstance(batches, Stream):
        if not cut or most in (None, 1):
            return [_example(batches, group, 0) for group in batches.sizes.unlike]
        raise ConfigError(
            f"the batches of a stream cannot be looked at before the run (training.shapes: {most}); let all have the "
            "same shape, or take data that has indices"
        )
    matters = cut and most != 1
    parts = batches.numbers.of_a_size(updates)
    return [
        one
        for those in parts
        for group in batches.sizes.unlike
        for one in _of_a_size(batches, training, group, those, matters=matters, targets=targets)
    ]


def _of_a_size(
    batches: Batches, training: TrainingSettings, group: int, updates: range, *, matters: bool, targets: bool
) -> list[Example]:
    """Return a group's first batch of some updates, which take equally many samples, and one of every other shape.

    Groups whose batches are as large have the same shapes.
    """
    most, number = training.shapes, updates[0] * batches.micro_batches
    first = _example(batches, group, number)
    if not matters:
        return [first]
    said = [Example(b.inputs(), b.targets(), first.samples) for b in batches.of_each_shape(group, number)]
    if not said and (most is None or batches.items is None):  # what lies in memory as it is trained on is alike
        return [first]
    found: dict[Shapes, Example] = {}
    for example in [first, *said] if said else _read(batches, group, updates, training.workers):
        shapes = example.shapes(targets=targets)
        if shapes not in found and len(found) == most:
            raise ConfigError(
                f"batches have more shapes than are allowed (training.shapes: {most}, found: "
                f"{'; '.join(map(shown, found))}, and: {shown(shapes)}, sample: {int(example.samples()[0])}); allow "
                "more, or make batches of fewer shapes, as collate_fn=stalegrid.pad_to([...]) does"
            )
        found.setdefault(shapes, example)
    return list(found.values())


def _example(batches: Batches | Stream | Feed, group: int, batch: int) -> Example:
    inputs = batches.inputs(group, batch)
    return Example(inputs, batches.targets(group, batch), partial(batches.indices, group, batch))


def _read(batches: Batches, group: int, updates: range, workers: int | None) -> Iterator[Example]:
    """Read some updates, of all groups whose batches are as large as those of one."""
    alike = [s for s, size in enumerate(batches.sizes.each) if size == batches.sizes.each[group]]
    micro = batches.micro_batches
    numbers = [number for update in updates for number in range(update * micro, (update + 1) * micro)]
    # Readers read one batch after another, from the first on; the last ones of epochs are few, and read here.
    ahead = workers if numbers == list(range(len(numbers))) else 0
    with ExitStack() as stack:
        read = feed(batches, dict.fromkeys(alike, (0, 0)), len(numbers), ahead, Readers(stack))
        for batch in numbers:
            for s in alike:
                yield _example(read, s, batch)
