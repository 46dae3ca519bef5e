"""What the global generators would draw next."""

import random
from typing import Any

import numpy as np
import torch


def global_states() -> list[Any]:
    """Return the states of torch's, Python's and NumPy's, to be compared."""
    name, keys, *rest = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), name, keys.tolist(), rest]
