"""Values as the model's own initialisers have them, each tensor by itself.

Does not know: stages, processes, how a recording is made.

Every draw has a key of its own, made of the seed, the name of the parameter that it is for, and its number there.  So a
parameter has the same bits whichever others are made beside it.  What several are made of, such as a copy of another
one, is drawn for the first of them.
"""

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from stalegrid.errors import ConfigError
from stalegrid.seeds import drawing
from stalegrid.sources.recording import Recording, name_of

CPU = torch.device("cpu")


class Drawn:
    """Values of initialisers.

    Args:
        recording: of how the model is made.
        seed: of the run.
    """

    def __init__(self, recording: Recording, seed: int) -> None:
        self._recording = recording
        self._seed = seed

    def check(self, names: Iterable[str]) -> None:
        """Check that there are values.

        Raises:
            ConfigError: nothing gives a tensor a value.
        """
        for name in names:
            if not self._recording.is_filled(name):
                raise ConfigError(
                    f"nothing gives a parameter or buffer a value (name: {name}): it is torch.empty, and no "
                    "initialiser follows; fill it in its module's __init__, or read the model from files (weights)"
                )

    def value(self, name: str) -> Tensor:
        """Return a tensor in memory, in the type in which the model makes it."""
        return self._recording.value(name, self._drawing)

    def text(self) -> str:
        """Return what processes compare."""
        given = [(s.operator, *tree_map_only(Tensor, Tensor.tolist, (s.args, s.kwargs))) for s in self._recording.steps]
        told = repr(([(name_of(operator), *rest) for operator, *rest in given], self._recording.places))
        return f"seed {self._seed} {hashlib.sha256(told.encode()).hexdigest()}"

    def _drawing(self, step: int) -> AbstractContextManager[object]:
        key = self._keys.get(step)
        return nullcontext() if key is None else drawing(CPU, self._seed, f"initial {key[0]}", key[1])

    @cached_property
    def _keys(self) -> dict[int, tuple[str, int]]:
        """For every step that draws: the first tensor that needs it, and the number of the draw there."""
        found: dict[int, tuple[str, int]] = {}
        for name in self._recording.places:
            own = [i for i in self._recording.history(name) if self._recording.steps[i].draws and i not in found]
            found |= {i: (name, number) for number, i in enumerate(own)}
        return found
