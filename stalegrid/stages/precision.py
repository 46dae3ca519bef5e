"""In which type a forward computes: that of the parameters, or a lower one that operations cast to.

Does not know: models, views, who computes a forward, when its backward comes.

Parameters, gradients and optimizers keep their type.  Which operations compute in the lower one is what torch's lists
for ``autocast`` say, of the device that they run on.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True, slots=True)
class Precision:
    """What forwards compute in, their losses included.

    Args:
        lower: the type that autocast casts to; None for no autocast.
        anew: whether a backward makes the casts of parameters anew, of the weights that its view shows, instead of
            finding those of its forward.
    """

    lower: torch.dtype | None = None
    anew: bool = False

    def on(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of a forward and its loss, but not of a backward, which follows their types.

        Args:
            device: that they compute on.
        """
        if self.lower is None:
            return nullcontext()
        # Without its cache, by which gradients of a parameter that is used twice are added in the lower type: they
        # could not be where a cut lies between the uses, and numbers would depend on the cuts.
        return torch.autocast(device.type, self.lower, cache_enabled=False)


@dataclass(frozen=True, slots=True)
class Cast:
    """A cast copy of parameters: how to make it of any vector of their layout.

    Args:
        offset: of what was cast, in the vector.
        shape: likewise.
        stride: likewise.
        options: of the cast.
    """

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    options: Mapping[str, Any]

    def of(self, vector: Tensor) -> Tensor:
        """Return the same cast of another vector."""
        own = vector.as_strided(self.shape, self.stride, vector.storage_offset() + self.offset)
        made: Tensor = _CAST(own, **self.options)
        return made


class Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the casts of parameters in a forward, autocast's and the model's own.

    Autograd saves a cast without a word of what it was made of, so casts are watched where they are made.

    Args:
        locate: tensor -> the offset in their vector at which it views parameters; None if it views none.
    """

    def __init__(self, locate: Callable[[Tensor], int | None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._locate = locate
        # By storage, each with the copy itself: as long as it lives, no other tensor has its memory.
        self._found: dict[int, tuple[Cast, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Execute an operation, and note what it casts."""
        made = func(*args, **(kwargs or {}))
        if func is _CAST and (offset := self._locate(args[0])) is not None:
            cast = Cast(offset, tuple(args[0].shape), args[0].stride(), kwargs or {})
            self._found[made.untyped_storage().data_ptr()] = cast, made
        return made

    def find(self, tensor: Tensor) -> Cast | None:
        """Return the cast that a tensor views; None where it views none, or one that was changed since."""
        if tensor.layout != torch.strided or tensor.is_neg() or tensor._version:
            return None
        cast, made = self._found.get(tensor.untyped_storage().data_ptr(), (None, tensor))
        return cast if made.dtype == tensor.dtype else None


_CAST = torch.ops.aten._to_copy.default
