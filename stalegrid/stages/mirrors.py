"""Parameters of another stage that this one uses too, at the weights with which their owner forwarded the batch.

Does not know: messages, who the owner is, optimizers, views.

A mirror is an input of the batch, like an activation: its backward and its second forward find what its forward found,
whichever weights the view names for the stage's own parameters.  Showing other weights is no copy: the parameter stays
the object that modules know, and its data is another tensor.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from stalegrid.objects import State


@dataclass(frozen=True, slots=True)
class Shown:
    """What a mirror shows.

    Args:
        value: the weights, which nobody changes.
        version: of the owner's, updates that it had applied.
    """

    value: Tensor
    version: int


@dataclass(frozen=True, slots=True)
class Use:
    """What came of the use of a mirror in a batch.

    Args:
        gradient: of the parameter, those of later uses included; None where there is none.
        version: at which it was used.
    """

    gradient: Tensor | None
    version: int


class Mirrors:
    """The mirrors of one stage.

    Args:
        parameters: of the stage's module, by name; hooks on their gradients are taken off, since they belong to the sum
            over all uses, which the owner has.
        version: of the weights that they show first.

    Attributes:
        used: by name, what came of the last backward.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], version: int = 0) -> None:
        self._parameters = parameters
        self._now = {name: Shown(p.detach(), version) for name, p in parameters.items()}
        self._kept: dict[int, dict[str, Shown]] = {}  # by batch in flight; one object as long as nothing is new
        self.used: dict[str, Use] = {}
        for parameter in parameters.values():
            for hooks in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks):
                if hooks:
                    hooks.clear()

    def renew(self, name: str, value: Tensor, version: int) -> None:
        """Show other weights from the next forward on.

        Args:
            name: of the mirror.
            value: the weights, of the parameter's shape and memory order; nobody may change it any more.
            version: of the owner's.
        """
        self._now = {**self._now, name: Shown(value, version)}
        self._parameters[name].data = value

    def forwarding(self, batch: int) -> None:
        """Note that a batch is forwarded at what is shown now."""
        self._kept[batch] = self._now

    @contextmanager
    def showing(self, batch: int) -> Iterator[None]:
        """Show what a batch in flight was forwarded at, for a while."""
        self._show(self._kept[batch])
        try:
            yield
        finally:
            self._show(self._now)

    def finished(self, batch: int) -> None:
        """Take the gradients out after the backward of a batch."""
        kept = self._kept.pop(batch)
        self.used = {name: Use(p.grad, kept[name].version) for name, p in self._parameters.items()}
        for parameter in self._parameters.values():
            parameter.grad = None

    def version(self, batch: int, name: str) -> int:
        """Return the owner's version at which a batch in flight was forwarded."""
        return self._kept[batch][name].version

    def state_dict(self) -> State:
        """Return what is shown now and what batches in flight were forwarded at, each of the values once."""

        def plain(shown: Mapping[str, Shown]) -> State:
            return {name: (one.value, one.version) for name, one in shown.items()}

        return {"now": plain(self._now), "kept": {batch: plain(shown) for batch, shown in self._kept.items()}}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""

        def read(shown: State) -> dict[str, Shown]:
            return {name: Shown(value, version) for name, (value, version) in shown.items()}

        self._now = read(state["now"])
        self._kept = {batch: read(shown) for batch, shown in state["kept"].items()}
        self._show(self._now)

    @property
    def nbytes(self) -> int:
        """Bytes held for batches in flight, besides what is shown now."""
        present = {id(shown.value) for shown in self._now.values()}
        held = {id(s.value): s.value.nbytes for kept in self._kept.values() for s in kept.values()}
        return sum(nbytes for key, nbytes in held.items() if key not in present)

    def _show(self, shown: Mapping[str, Shown]) -> None:
        for name, parameter in self._parameters.items():
            if parameter.data_ptr() != shown[name].value.data_ptr():
                parameter.data = shown[name].value
