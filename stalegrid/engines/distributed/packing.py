"""How a job is written for worker processes: by value, but for the generators that every process has.

Does not know: what a job consists of, where it is read.
"""

import random
from typing import Any

import cloudpickle
import numpy as np


class Packer(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes ``random.random`` and the like by name.

    By value they would bring a copy of the global generator along, and draw from that: nobody would key it.
    """

    def reducer_override(self, obj: Any) -> Any:
        """Write a function of a module of random numbers by its name; see :class:`pickle.Pickler`."""
        owner = getattr(obj, "__self__", None)
        for module in (random, np.random):
            if owner is module.random.__self__ and getattr(module, obj.__name__, None) == obj:
                return getattr, (module, obj.__name__)
        return super().reducer_override(obj)
