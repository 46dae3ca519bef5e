"""What both ways of following a forward refuse, and how it is said.

Does not know: how a forward is followed.
"""

import contextlib
import linecache
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint

from stalegrid.errors import ConfigError

REMEDY = (
    "move that part into a module of its own, which is then kept whole, or name the parts of the model that are called "
    "in turn as blocks, such as blocks=['embed', 'layers.*', 'head']"
)


def refused(model: nn.Module, by: str, problem: Exception) -> ConfigError:
    """Return what is said of a forward that could not be followed.

    Args:
        model: whose.
        by: what followed it.
        problem: that was raised.
    """
    at = place(problem)
    where = f", line: {at}" if at else ""
    return ConfigError(
        f"the model's forward cannot be traced (model: {type(model).__name__}, by: {by}{where}): {reason(problem)}; "
        f"{REMEDY}"
    )


def together(problems: Sequence[ConfigError]) -> ConfigError:
    """Return what is said where nothing worked, with the remedy once."""
    texts = [str(problem).removesuffix(f"; {REMEDY}") for problem in problems]
    remedy = [REMEDY] * any(REMEDY in str(problem) for problem in problems)
    return ConfigError("; ".join([*texts, *remedy]))


def told(problem: Exception) -> str:
    """Say in a line what was in the way, and where in the user's code."""
    at = place(problem)
    return reason(problem) + (f" ({at})" if at else "")


def reason(problem: Exception) -> str:
    """Say in a line what was in the way."""
    text = next(iter(str(problem).splitlines()), "")
    if "control flow" in text or "DataDependent" in type(problem).__name__ or "data-dependent" in str(problem):
        return "what is done depends on the values of tensors"
    if "Proxy" in text or "FakeTensor" in text:
        return "what is done depends on values or sizes that are not known while the forward is followed"
    # Said to those who wrote torch, not to those who use it.
    inner = type(problem).__module__.startswith(("torch._", "torch.fx", "torch.export")) or "co_varnames" in text
    if isinstance(problem, AssertionError | KeyError | AttributeError | IndexError) or inner or not text:
        text = f"it does what cannot be followed ({type(problem).__name__}{': ' if text else ''}{text:.160})"
    return text[:300]


def place(problem: Exception) -> str:
    """Return the line of the user's code in which something was raised."""
    others = (str(Path(torch.__file__).parent), str(Path(__file__).parent), contextlib.__file__)
    lines = [f for f in traceback.extract_tb(problem.__traceback__) if not f.filename.startswith(others)]
    if not lines:
        return ""
    last = lines[-1]
    code = linecache.getline(last.filename, last.lineno or 0).strip()
    return f"{Path(last.filename).name}:{last.lineno}" + (f": {code:.100}" if code else "")


def refusing(apply: Any, kind: type) -> Any:
    """Make a custom autograd function fail on stand-ins, which would lose its own backward without a word.

    Args:
        apply: of :class:`torch.autograd.Function`.
        kind: of the stand-ins.
    """

    def guarded(function: type, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, kind) for a in [*args, *kwargs.values()]):
            if function.__module__ == checkpoint.__name__:  # torch 2.8 keeps the inputs of a checkpoint so
                refuse_saving(function)
            if not function.__module__.startswith("torch._"):
                raise TypeError(f"a custom autograd function cannot be traced (function: {function.__name__})")
        return apply.__func__(function, *args, **kwargs)

    return classmethod(guarded)


def refuse_saving(hooks: object) -> None:
    """Refuse what would be dissolved without a word: what was to be saved in another way would be kept as usual."""
    raise TypeError("the forward checkpoints or offloads activations, which cannot be traced")
