"""What a codec answers: what travels in the place of a vector, and what is made of it.

Does not know: which codecs there are, messages, edges.
"""

from typing import ClassVar

import torch
from torch import Tensor

from stalegrid.programs import Layout

Tensors = tuple[Tensor, ...]


class Codec:
    """Something smaller in the place of a vector of floating numbers.

    Attributes:
        name: as users write it.
        sparse: whether elements are left out, which then are 0 where they arrive.
    """

    name: ClassVar[str]
    sparse: ClassVar[bool] = False

    def __str__(self) -> str:
        return self.name

    def encode(self, vector: Tensor) -> Tensors:
        """Return what travels.

        Args:
            vector: shape (n,), of any floating type; left as it is.
        """
        raise NotImplementedError

    def decode(self, parts: Tensors, numel: int, dtype: torch.dtype) -> Tensor:
        """Return what arrives, shape (n,).

        Args:
            parts: what :meth:`encode` returned; left as they are.
            numel: n.
            dtype: of the vector.
        """
        raise NotImplementedError

    def layout(self, numel: int, dtype: torch.dtype) -> Layout:
        """Return what travels for a vector.

        Args:
            numel: n.
            dtype: of the vector.
        """
        raise NotImplementedError
