"""How unlike the predictions of several models are: the Jensen-Shannon distance of their classes' probabilities.

Does not know: models, test data, who measures.

With ``p_s`` the softmax of the scores of model s, of S models with weights ``pi_s`` that sum to 1, and ``m = sum_s pi_s
p_s``, the divergence for one prediction is::

    JS(p_1, ..., p_S) = sum_s pi_s sum_c p_s(c) ln(p_s(c) / m(c)) = H(m) - sum_s pi_s H(p_s)

in natural units: 0 where all are alike, at most the entropy of the weights, ln S for equal ones (Lin, Divergence
measures based on the Shannon entropy, IEEE Transactions on Information Theory 37, 1991).  The distance is the root of
its mean over predictions.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stalegrid.observe.records import tensor_of

JS_DISTANCE = "js_distance"
"""What a record calls the distance."""


def class_scores(outputs: Any, targets: Any) -> Tensor | None:
    """Return scores of classes, shape (predictions, classes); None where outputs are none, or nobody can tell.

    Args:
        outputs: scores of shape (samples, classes); or, where each sample has several targets, (samples, ..., classes)
            or, as ``torch.nn.CrossEntropyLoss`` takes them, (samples, classes, ...); or what has such as ``logits``.
        targets: whole numbers, one a prediction; or what has such as ``labels``.
    """
    scores, classes = tensor_of(outputs, "logits"), tensor_of(targets, "labels")
    if scores is None or classes is None or not scores.is_floating_point() or classes.is_floating_point():
        return None
    ways = [at for at in {1, scores.ndim - 1} if at > 0 and _without(scores, at) == tuple(classes.shape)]
    if len(ways) != 1 or scores.shape[ways[0]] < 2:
        return None
    return scores.detach().movedim(ways[0], -1).flatten(0, -2)


class Divergence:
    """The mean divergence of the predictions of several models, summed up slice by slice.

    Args:
        weights: of the models; alike up to a factor.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = [weight / sum(weights) for weight in weights]
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen."""
        self._total, self._predictions = 0.0, 0

    def update(self, scores: Sequence[Tensor]) -> None:
        """Take the scores of every model for a slice, each of shape (predictions, classes)."""
        # Differences of nearly equal logarithms: of floats little would be left.
        logs = torch.stack([one.double().log_softmax(dim=-1) for one in scores])
        weights = logs.new_tensor(self._weights).view(-1, 1, 1)
        p = logs.exp()
        middle = (weights * p).sum(dim=0)
        # What all have alike adds nothing, which rounding would not leave so; nor does what has no probability, whose
        # logarithm may be infinite.
        nothing = (logs == logs[0]).all(dim=0) | (p == 0)
        self._total += float((weights * p * (logs - middle.log())).masked_fill(nothing, 0.0).sum())
        self._predictions += len(scores[0])

    def distance(self) -> float:
        """Return the root of the mean divergence of all slices; NaN where a score was not finite."""
        mean = self._total / max(1, self._predictions)
        # Rounding may take the divergence of equal models below 0.
        return math.sqrt(max(0.0, mean)) if math.isfinite(mean) else math.nan


def _without(scores: Tensor, at: int) -> tuple[int, ...]:
    return tuple(scores.shape[:at] + scores.shape[at + 1 :])
