"""Perplexity, the usual metric of language models.

Does not know: models, data, who measures.
"""

import math
from typing import Any, ClassVar

import torch
from torch.nn.functional import cross_entropy

from stalegrid.observe.records import tensor_of


class Perplexity:
    """How many tokens a model hesitates between: ``exp(-1/T sum_t log p(y_t))`` over all T tokens of the test data.

    Every token counts alike, however batches and lengths are; ``log p`` is the log-softmax of the outputs.

    Args:
        classes: dimension of the outputs that has a score for each token; the last one, or 1 for outputs that are laid
            out as ``torch.nn.CrossEntropyLoss`` takes them.
        ignored: target that is no token, such as padding.
        shift: places from an output to the target that it predicts: 1 where targets are the inputs themselves, as the
            causal models of transformers take them.
    """

    higher_is_better: ClassVar[bool] = False

    def __init__(self, classes: int = -1, ignored: int = -100, shift: int = 0) -> None:
        self._classes = classes
        self._ignored = ignored
        self._shift = shift
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen."""
        self._tokens, self._total = 0, 0.0

    def update(self, outputs: Any, *others: Any) -> None:
        """Take a slice.

        Args:
            outputs: scores, shape (samples, tokens, classes), or what has them as its ``logits``.
            others: last the targets, whole numbers of shape (samples, tokens), or a mapping that has them as its
                ``labels``.

        Raises:
            ValueError: shapes do not fit.
        """
        given, targets = tensor_of(outputs, "logits"), tensor_of(others[-1], "labels")
        if given is None or targets is None:
            raise ValueError("it needs scores, or what has them as logits, and targets, or what has them as labels")
        scores = given.movedim(self._classes, -1)
        if scores.shape[:-1] != targets.shape:
            raise ValueError(
                f"outputs need a score for each class of each target (outputs: {tuple(scores.shape)} with classes last,"
                f" targets: {tuple(targets.shape)}); name the dimension of the classes"
            )
        if self._shift:
            scores, targets = scores[:, : targets.shape[1] - self._shift], targets[:, self._shift :]
        exact = scores if scores.dtype is torch.float64 else scores.float()
        losses = cross_entropy(exact.flatten(0, -2), targets.flatten(), ignore_index=self._ignored, reduction="none")
        self._total += float(losses.double().sum())
        self._tokens += int((targets != self._ignored).sum())

    def compute(self) -> float:
        """Return the perplexity of all slices.

        Raises:
            ValueError: there was no token.
        """
        if not self._tokens:
            raise ValueError(f"there is no token (targets: all {self._ignored})")
        mean = self._total / self._tokens
        return math.exp(mean) if mean < _LARGEST else math.inf


_LARGEST = 709.0  # exp of more is no float
