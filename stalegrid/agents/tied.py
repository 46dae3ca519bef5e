"""What a unit sends and receives for parameters that it shares with other stages of its group.

Does not know: when (:mod:`stalegrid.programs.ties` does), groups, engines, how a stage shows other weights.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from stalegrid.errors import StalenessExceeded, TrainingError
from stalegrid.programs import GRADIENT, WEIGHTS, Action, Message, Tag, Tie, Ties, Unit
from stalegrid.stages import Ledger, Stage

TIED = (WEIGHTS, GRADIENT)
NONE = -1
"""In the place of a version: no gradient, which is not one of zero."""


class Tied:
    """The ties of one unit.

    Args:
        unit: which.
        ties: of the model.
        stage: of the unit.
        ledger: of the unit, which knows at which version it has forwarded a batch.
    """

    def __init__(self, unit: Unit, ties: Ties, stage: Stage, ledger: Ledger) -> None:
        self._unit = unit
        self._ties = ties
        self._stage = stage
        self._ledger = ledger
        places = {entry.name: p for entry, p in stage.weights.places()}
        self._owned = {name: places[name] for name in ties.owned(unit.stage).values()}

    @contextmanager
    def lending(self, action: Action) -> Iterator[Sequence[str]]:
        """Yield the names of the parameters whose weights a forward sends, and check that it only reads them.

        Raises:
            TrainingError: it has changed one in place, which its other users would not see.
        """
        before = [p._version for p in self._owned.values()]
        yield list(self._owned) if any(tag.edge.name == WEIGHTS for tag in action.sends) else ()
        if before != [p._version for p in self._owned.values()]:
            raise TrainingError(
                f"the forward changes a tied parameter in place (unit: {self._unit}, batch: {action.index}), and the "
                "other stages that use it would not see that; do it in the optimizer, or keep all uses in one stage "
                "(grid.tied: together)"
            )

    def renewed(self, inbox: Sequence[Message]) -> list[Message]:
        """Take the weights that have come for a forward; return the other messages."""
        for message in inbox:
            if message.tag.edge.name == WEIGHTS:
                for tie, value in zip(self._ties.along(message.tag.edge), message.tensors, strict=True):
                    self._stage.mirrors.renew(tie.name(self._unit.stage), value, message.version)
        return [message for message in inbox if message.tag.edge.name not in TIED]

    def later(
        self, batch: int, inbox: Sequence[Message], corrected: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
    ) -> tuple[list[Message], dict[str, Tensor]]:
        """Take the gradients that have come for a backward; return the other messages, and the gradients by name.

        Args:
            batch: whose.
            inbox: of the backward.
            corrected: what corrections make of gradients from the stage above.

        Raises:
            StalenessExceeded: a parameter was used above at another version than here, so the staleness of its update
                would not be the one that is declared.
        """
        found: dict[str, Tensor] = {}
        for message in inbox:
            if message.tag.edge.name == GRADIENT:
                found |= self._uses(batch, message, corrected)
        return [message for message in inbox if message.tag.edge.name not in TIED], found

    def _uses(
        self, batch: int, message: Message, corrected: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
    ) -> dict[str, Tensor]:
        edge = message.tag.edge
        *made, versions = message.tensors
        gradients = tuple(made)
        # Once for every stage on the way down, so that all uses of a parameter count alike.
        for _ in range(edge.source.stage - self._unit.stage):
            gradients = corrected(gradients)
        found: dict[str, Tensor] = {}
        for tie, gradient, version in zip(self._ties.along(edge), gradients, versions.tolist(), strict=True):
            if version != NONE:
                self._check(batch, tie, edge.source, version)
                found[tie.name(self._unit.stage)] = gradient
        return found

    def message(self, tag: Tag, version: int) -> Message:
        """Return the weights that the last forward used, or the gradients that the last backward made.

        Args:
            tag: of the message.
            version: at which the batch was forwarded.
        """
        names = [tie.name(self._unit.stage) for tie in self._ties.along(tag.edge)]
        if tag.edge.name == WEIGHTS:
            return Message(tag, version, tuple(self._stage.lent[name] for name in names))
        uses = [self._stage.mirrors.used[name] for name in names]
        mirrored = self._stage.weights.mirrored
        versions = torch.tensor([NONE if use.gradient is None else use.version for use in uses], dtype=torch.int64)
        # A message has a fixed layout: zeros for a gradient that there is none.
        filled = (
            torch.zeros_like(mirrored[name]) if use.gradient is None else use.gradient
            for name, use in zip(names, uses, strict=True)
        )
        return Message(tag, self._stage.weights.version, (*filled, versions))

    def _check(self, batch: int, tie: Tie, user: Unit, version: int) -> None:
        if tie.owner == self._unit.stage:
            own = self._ledger.oldest([batch])
        else:
            own = self._stage.mirrors.version(batch, tie.name(self._unit.stage))
        if version != own:
            raise StalenessExceeded(
                f"a tied parameter was used at two versions in one batch (parameter: {tie.names[0]}, batch: {batch}, "
                f"unit: {self._unit}, version: {own}, unit: {user}, version: {version})"
            )
