"""What a server reports: of each gradient that it took its learner and its staleness, and the learners it lost.

Does not know: files, clocks, other servers.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from stalegrid.objects import State
from stalegrid.observe.records import Record
from stalegrid.observe.weighed import Weighed
from stalegrid.programs import Layout, flat_layout, learner


@dataclass(slots=True)
class Takes:
    """What a server took since its last report.

    Attributes:
        lr: learning rate of the last update, of the first parameter group.
        samples: of all batches.
        losses: what the losses of batches count; each 1 where it is a mean, less of a smaller batch.
        loss_sum: over batches, of their means or sums, weighed likewise.
        correct: samples whose largest output is the target; NaN where that has no meaning.
        held: most bytes of past versions that the server held.
        taken: (learner, staleness in updates) of every gradient, in the order in which they came.
        lost: learners found to be gone, in that order.
    """

    lr: float = 0.0
    samples: float = 0.0
    losses: float = 0.0
    loss_sum: float = 0.0
    correct: float = 0.0
    held: float = 0.0
    taken: list[tuple[int, int]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    _weighed: Weighed = field(default_factory=Weighed, init=False, compare=False)

    def used(self, number: int, staleness: int, numbers: Tensor, *, mean: bool = True) -> None:
        """Note a gradient.

        Args:
            number: of the learner.
            staleness: in updates.
            numbers: samples, loss averaged over them or summed, samples classified correctly, what the loss counts (1
                where it is a mean); shape (4,).
            mean: whether the loss is one.
        """
        samples, loss, correct, count = numbers.tolist()
        self.samples += samples
        self._weighed.add(loss, count, int(samples) if mean else None)
        self.losses, self.loss_sum = self._weighed.total()
        self.correct += correct
        self.taken.append((number, staleness))

    def lose(self, number: int) -> None:
        """Note that a learner is gone."""
        self.lost.append(number)

    def state_dict(self) -> State:
        """Return all that was noted."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {**told, "weighed": self._weighed.totals}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._weighed = Weighed(state["weighed"])
        for f in fields(self):
            if f.init:
                setattr(self, f.name, state[f.name])

    def vector(self, most: int) -> Tensor:
        """Return the numbers as float64, then room for ``most`` pairs: a learner's staleness is -1 where it is gone."""
        pairs = [*self.taken, *((number, _NOTHING) for number in self.lost)]
        # Filled up: messages of an edge all have the same layout.
        pairs += [(_NOTHING, _NOTHING)] * (most - len(pairs))
        flat = (value for pair in pairs for value in pair)
        return torch.tensor([*(getattr(self, name) for name in _NUMBERS), *flat], dtype=torch.float64)

    @classmethod
    def read(cls, vector: Tensor) -> "Takes":
        """Undo :meth:`vector`."""
        values: list[float] = vector.tolist()
        numbers, pairs = values[: len(_NUMBERS)], values[len(_NUMBERS) :]
        both = [(int(number), int(tau)) for number, tau in zip(pairs[::2], pairs[1::2], strict=True)]
        known = [pair for pair in both if pair[0] != _NOTHING]
        made = cls(
            taken=[pair for pair in known if pair[1] != _NOTHING],
            lost=[number for number, tau in known if tau == _NOTHING],
        )
        for name, value in zip(_NUMBERS, numbers, strict=True):
            setattr(made, name, value)
        return made

    @staticmethod
    def layout(most: int) -> Layout:
        """Return what a report of at most so many gradients and losses of learners consists of."""
        return flat_layout(len(_NUMBERS) + 2 * most, torch.float64)

    def record(self) -> Record:
        """Return what a record says of the gradients."""
        loss = self.loss_sum / self.losses if self.losses else math.nan
        by_learner: dict[int, list[int]] = {}
        for number, staleness in self.taken:
            by_learner.setdefault(number, []).append(staleness)
        return {
            "loss": loss,
            "train_accuracy": None if math.isnan(self.correct) else self.correct / self.samples,
            "lr": self.lr,
            "samples": int(self.samples),
            "group_loss": [loss],
            "held": int(self.held),
            "staleness": {str(learner(number)): _staleness(taus) for number, taus in sorted(by_learner.items())},
            "lost": self.lost,
        }


_NOTHING = -1
_NUMBERS = tuple(f.name for f in fields(Takes) if f.name not in ("taken", "lost", "_weighed"))


def _staleness(taus: Sequence[int]) -> Record:
    counts = Counter(taus)
    return {
        "mean": sum(taus) / len(taus),
        "max": max(taus),
        "batches": len(taus),
        "histogram": [counts[tau] for tau in range(max(taus) + 1)],
        "gap": None,
    }
