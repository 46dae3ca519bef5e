"""What a forward asks of the values of its inputs, answered while it is captured as they answer.

Does not know: how a forward is followed, where a model is cut.

Attention of transformers leaves out a mask that hides nothing, and torch takes another kernel then, which rounds
otherwise.  A forward that is followed has no values to look at, and transformers always makes a mask.  So the forward
runs once on the batch, and its questions are heard; while it is followed it is told that nobody follows it, and its
questions have the same answers.  They stay in the capture: a batch that answers otherwise needs a capture of its own.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Self
from unittest import mock

import torch
from torch import Tensor, fx, nn

from stalegrid.errors import TrainingError
from stalegrid.objects import Form, Tensors, call
from stalegrid.seeds import drawing

CPU = torch.device("cpu")

FOLLOWED = (
    ("torch.compiler", "is_compiling"),
    ("torch.compiler", "is_exporting"),
    ("transformers.utils.import_utils", "is_fake_tensor"),
)
"""Functions that a forward asks whether it is followed, where there are such."""

MARK = "stalegrid: a question of the forward"


def heard(model: nn.Module, inputs: Tensors, form: Form | None) -> tuple[bool, ...]:
    """Return the answers to what a forward asks of values, in order.

    Args:
        model: that is run.
        inputs: the tensors of one batch.
        form: how the model is called with them; None for one by one.
    """
    answers: list[bool] = []
    ask = Tensor.__bool__

    def hear(tensor: Tensor) -> bool:
        answers.append(ask(tensor))
        return answers[-1]

    with drawing(CPU, 0, "trial"), mock.patch.object(Tensor, "__bool__", hear):
        call(model, form, [x.clone() for x in inputs])
    return tuple(answers)


@contextmanager
def answering(answers: Sequence[bool]) -> Iterator[None]:
    """Answer what a forward asks while torch.export follows it, and note it among the operations.

    Args:
        answers: in order.

    Raises:
        TypeError: it asks other things than before.
    """
    left = list(answers)

    def answered(tensor: Tensor) -> bool:
        if not left:
            raise TypeError("the forward asks other things of values while it is followed")
        answer = left.pop(0)
        torch.ops.aten._assert_async.msg(tensor if answer else tensor.logical_not(), MARK)
        return answer

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(Tensor, "__bool__", answered))
        for module, name in FOLLOWED:
            if hasattr(sys.modules.get(module), name):
                patches.enter_context(mock.patch(f"{module}.{name}", _no))
        yield
    if left:
        raise TypeError("the forward asks other things of values while it is followed")


def _no(*args: object) -> bool:
    return False


def asks(node: fx.Node) -> bool:
    """Return whether an operation of an exported program is a question that was answered."""
    return node.target is torch.ops.aten._assert_async.msg and node.args[1] == MARK


def holds(answer: Tensor) -> None:
    """Stand in a captured model for a question: let a batch pass that answers like the one it was captured with.

    Raises:
        Otherwise: it answers otherwise.
    """
    if not answer:
        raise Otherwise.of()


class Otherwise(TrainingError):
    """A batch answers what the forward asks of it as none did for which the model was cut."""

    # Not in the constructor, to which an error that comes from a process is given its text.
    @classmethod
    def of(cls, which: str = "") -> Self:
        """Make one.

        Args:
            which: batch it is, if that is known.
        """
        return cls(
            "the forward takes another way for this batch than for those that the model was cut for, since it asks its "
            f"inputs for values, such as whether a mask hides anything{which}; let the first batch have what others "
            "have, such as a mask, or train with one stage"
        )
