"""Forward and backward of one stage, cut from its neighbours' graphs.

Does not know: other stages, schedules, optimizers, messages.

PyTorch refuses a backward through a graph whose weights were changed in place.  Around the forward, saved tensors that
view the stage's parameters are therefore replaced by their place in the vector, and read back at the backward from
whichever vector the view names.  Everything else that a graph saves is kept, and still checked against in-place
changes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from stalegrid.weights import View, Weights


@dataclass(frozen=True, slots=True)
class Place:
    """A saved tensor that views the parameters: how to read it from any vector of their layout."""

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    version: int


@dataclass(frozen=True, slots=True)
class Saved:
    """Any other saved tensor, and its modification counter when it was saved."""

    tensor: Tensor
    modified: int


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch between its forward and its backward."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    version: int


class Stage:
    """One stage: a module, its weights, and the batches in flight.

    Args:
        module: maps the tensors of the stage below to a tensor or a tuple of tensors.
        weights: of that module.
        view: which weights late backwards see.
        drawing: batch -> context in which the forward draws random numbers (dropout).
        first: whether the inputs are data, which need no gradient.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Weights,
        view: View,
        drawing: Callable[[int], AbstractContextManager[None]],
        first: bool,
    ) -> None:
        self.module = module.train()
        self.weights = weights
        self.view = view
        self._drawing = drawing
        self._first = first
        self._in_flight: dict[int, InFlight] = {}
        self._late = False  # whether a backward is under way whose weights have changed since its forward
        self._watch_for_recomputation()

    def forward(
        self, batch: int, inputs: tuple[Tensor, ...], head: Callable[..., Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Forward a batch and keep its graph.

        Args:
            batch: its index.
            inputs: activations of the stage below, or data.
            head: on the last stage, outputs -> loss, shape ().

        Returns:
            The outputs, cut from the graph; with a head, the loss alone.
        """
        leaves = tuple(x.detach().requires_grad_(not self._first and x.is_floating_point()) for x in inputs)
        with self._drawing(batch), saved_tensors_hooks(self._pack, self._unpack):
            made = self.module(*leaves)
            outputs = made if isinstance(made, tuple) else (made,)
            if head is not None:
                outputs = (head(*outputs),)
        version = self.weights.version
        self._in_flight[batch] = InFlight(leaves, outputs, version)
        self.view.forwarded(version)
        return tuple(self._own(y.detach()) for y in outputs)

    def backward(self, batch: int, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], int]:
        """Backpropagate a batch in flight, adding to the gradients of the parameters.

        Args:
            batch: its index.
            gradients: of the floating outputs, in order.

        Returns:
            The gradients of the floating inputs, in order (none on the first stage), and the version at which the
            batch was forwarded.
        """
        flight = self._in_flight.pop(batch)
        floating = [y for y in flight.outputs if y.is_floating_point()]
        pairs = [(y, g) for y, g in zip(floating, gradients, strict=True) if y.requires_grad]
        self._late = flight.version != self.weights.version
        if pairs:
            torch.autograd.backward([y for y, _ in pairs], [g for _, g in pairs])
        self._late = False
        self.view.finished(flight.version)
        below = () if self._first else tuple(_gradient(x) for x in flight.inputs if x.is_floating_point())
        return below, flight.version

    def _own(self, output: Tensor) -> Tensor:
        """Copy an output that views the weights: the receiver must not see them change."""
        views = output.untyped_storage().data_ptr() == self.weights.flat.untyped_storage().data_ptr()
        return output.clone() if views else output

    @property
    def in_flight(self) -> int:
        """Batches between forward and backward."""
        return len(self._in_flight)

    def _watch_for_recomputation(self) -> None:
        def refuse(module: nn.Module, inputs: object) -> None:
            if self._late:
                raise RuntimeError(
                    f"the model runs a forward again in its backward (module: {type(module).__name__}), as activation "
                    "checkpointing does, with weights that have changed since; do not checkpoint inside a stale stage"
                )

        for part in self.module.modules():
            part.register_forward_pre_hook(refuse)

    def _pack(self, tensor: Tensor) -> Place | Saved:
        offset = self.weights.locate(tensor)
        if offset is None:
            # Detached, because a saved output that kept itself would be a cycle that is never freed.
            return Saved(tensor.detach(), tensor._version)
        return Place(offset, tuple(tensor.shape), tensor.stride(), self.weights.version)

    def _unpack(self, packed: Place | Saved) -> Tensor:
        if isinstance(packed, Place):
            flat = self.view.seen(packed.version)
            return flat.as_strided(packed.shape, packed.stride, flat.storage_offset() + packed.offset)
        if packed.tensor._version != packed.modified:
            raise RuntimeError(
                "a tensor needed by the backward was modified in place by the model "
                f"(shape: {tuple(packed.tensor.shape)}); use the out-of-place form of that operation"
            )
        return packed.tensor


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
