"""What is measured of the theory at a version of a run, from what its units show of themselves.

Does not know: engines, files, how units come to show themselves, how a diagnosis is shown.

Nothing that is trained depends on it: it has a model of its own, draws by keys of its own, and every number is a
function of what units have shown.  What each number means, and which of them are bounds: docs/diagnosing.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stalegrid.agents import Look
from stalegrid.diagnosis.consensus import Mixed, distance, mixed_of, weights_in_mean
from stalegrid.diagnosis.fixed import Fixed
from stalegrid.diagnosis.noise import Noise, noise_of
from stalegrid.diagnosis.points import Shown, mean_point, point_of, trained
from stalegrid.diagnosis.staleness import gradient_of, smoothness
from stalegrid.errors import ConfigError, NonFiniteLoss
from stalegrid.limits import ALL_LATE, Limit, Losses, limits_at, optimizer_of
from stalegrid.objects import State
from stalegrid.observe import Record
from stalegrid.plans import Plan, Task
from stalegrid.programs import Unit
from stalegrid.stages import name_of_view


class Diagnosis:
    """Diagnoses versions of a run.

    Args:
        task: what is trained; left as it is.
        plan: of the run, which says when units show themselves.
        fixed: samples that it is measured on.
        device: to measure on.
    """

    def __init__(self, task: Task, plan: Plan, fixed: Fixed, device: torch.device) -> None:
        assert plan.program.watch is not None
        assert plan.program.watch.looks is not None
        self._plan = plan
        self._looks = plan.program.watch.looks
        self._fixed = fixed
        self._device = device
        self._batches = Losses(task, plan, fixed.batches, device)
        self._singles = None if fixed.singles is None else Losses(task, plan, fixed.singles, device, cut=False)
        self._optimizer = optimizer_of(task, self._batches, plan)
        self._sizes = [sum(p.numel() for p in part) for part in self._batches.trained]
        self._mixed = mixed_of(plan)
        self._shown = Shown(plan, self._looks)
        self._average = (0.0, 0.0)  # sums of gamma ||grad F||^2 and of gamma over versions
        self._added = 0.0  # max v so far

    def check(self) -> None:
        """Measure a little of it, so that what cannot be measured is said before anything starts.

        Raises:
            ConfigError: it cannot.
        """
        self._batches.gradient(0)
        parameters = [p for part in self._batches.trained for p in part]
        self._batches.hessian(parameters)(self._batches.start(parameters, 0))
        if self._singles is None:
            return
        try:
            self._singles.gradient(0)
        except Exception as problem:  # model and loss are the user's: anything can be raised
            raise ConfigError(
                "the variance of gradients is measured sample by sample, and the model or the loss does not take one "
                f"by itself (output.diagnose, batch_size: 1): {problem}; leave output.diagnose out"
            ) from problem

    def step(self, version: int, looks: Mapping[Unit, Look]) -> Record | None:
        """Take what units show at a version, and return the diagnosis where it is to be diagnosed.

        Raises:
            NonFiniteLoss: the gradient of the mean model is not finite.
        """
        self._shown.take(version, {unit: look.kept(self._device) for unit, look in looks.items()})
        if not self._looks.diagnosed(version):
            return None
        found = self._measured(version)
        self._shown.forget(version)
        return found

    def state_dict(self) -> State:
        """Return what later versions are diagnosed with."""
        return {**self._shown.state_dict(), "average": self._average, "added": self._added}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._shown.load_state_dict(state)
        self._average, self._added = state["average"], state["added"]

    def _measured(self, version: int) -> Record:
        stages = range(self._plan.grid.stages)
        groups = self._shown.groups([version] * len(stages))
        assert groups is not None
        error, gap = self._late(version, groups)
        middle = mean_point(self._plan, groups)
        for losses in (self._batches, self._singles):
            if losses is not None:
                losses.at(middle)
        noise = noise_of(self._batches, self._singles, self._fixed, self._sizes)
        square = float(noise.gradient.square().sum())
        if not math.isfinite(square):
            raise NonFiniteLoss(
                f"the gradient of the mean model is not finite (version: {version}); lower the learning rate or the "
                "staleness, or clip the gradients"
            )
        rate = groups[0][-1].rate
        limits = limits_at(self._plan, self._batches, self._optimizer, rate).each
        whole = self._whole(limits)
        return {
            "rate": rate,
            "gradient_square": square,
            "gradient_square_average": self._averaged(rate, square),
            "noise": _noise(noise, self._fixed.why),
            "consensus": self._consensus(version, groups) if len(groups) > 1 else None,
            "used": self._used,
            "stages": [self._stage(k, noise, error, gap, limits[k]) for k in stages],
            "rate_limit": whole.rate,
            "rate_limit_why": whole.why,
        }

    @property
    def _used(self) -> bool:
        """Whether the gradients of updates are those of the late weights that are measured."""
        plan, schedule = self._plan, self._plan.schedule
        one = schedule.micro_batches == 1 or schedule.delay > 0
        return not any(plan.bounds) or (name_of_view(plan.view) in ALL_LATE and one)

    def _whole(self, limits: Sequence[Limit]) -> Limit:
        """Return the limit of all that is trained: the last one, or that of the stage that trains alone."""
        return limits[-1] if limits[-1].stage is None else limits[next(k for k, n in enumerate(self._sizes) if n)]

    def _averaged(self, rate: float, square: float) -> float:
        """Return the mean of what was measured so far, weighed by the rates."""
        total, weight = self._average
        self._average = total + rate * square, weight + rate
        return self._average[0] / self._average[1] if self._average[1] else square

    def _late(self, version: int, groups: Sequence[Sequence[Look]]) -> tuple[list[float] | None, float | None]:
        """Return the staleness error of each stage and the gap, as means over groups; None where nothing is known."""
        plan = self._plan
        if not any(plan.bounds):
            return [0.0] * plan.grid.stages, 0.0
        late = self._shown.groups([version - bound for bound in plan.bounds])
        if late is None:
            return None, None
        errors, gaps = [0.0] * plan.grid.stages, 0.0
        for now, then in zip(groups, late, strict=True):
            moved = self._gradient(then) - self._gradient(now)
            parts = torch.split(moved, self._sizes)
            errors = [error + float(part.norm()) / len(groups) for error, part in zip(errors, parts, strict=True)]
            gaps += float((trained(plan, then) - trained(plan, now)).norm()) / len(groups)
        return errors, gaps

    def _gradient(self, looks: Sequence[Look]) -> Tensor:
        self._batches.at(point_of(self._plan, looks))
        return gradient_of(self._batches)

    def _consensus(self, version: int, groups: Sequence[Sequence[Look]]) -> Record:
        plan, mixed = self._plan, self._mixed
        now = torch.stack([trained(plan, own) for own in groups])
        found: dict[str, Any] = {"distance": distance(now, weights_in_mean(plan))}
        found |= {**dict.fromkeys(("added", "after_update", "bound")), "every_update": self._looks.every == 1}
        if not isinstance(mixed, Mixed):
            return found | {"why": mixed.why}
        before = self._shown.groups([version - 1] * plan.grid.stages)
        # Groups begin alike, and weights that are alike take nobody apart, whichever they are.
        then = torch.zeros_like(now) if before is None else torch.stack([trained(plan, own) for own in before])
        added = mixed.added(then, now, version)
        self._added = max(self._added, added)
        bounds = {"after_update": mixed.after_update(then, added, version), "bound": mixed.at_most(self._added)}
        return found | {"added": added} | bounds | {"why": ""}

    def _stage(self, k: int, noise: Noise, error: list[float] | None, gap: float | None, limit: Limit) -> Record:
        late = error is not None and any(self._plan.bounds) and self._sizes[k] > 0
        smooth = smoothness(self._batches, self._sizes, k) if late else None
        bound = 0.0 if gap == 0.0 else None if smooth is None or gap is None else smooth * gap
        return {
            "staleness": self._plan.bounds[k],
            "variance": None if noise.variances is None else noise.variances[k],
            "noise": None if noise.measured is None else noise.measured[k],
            "predicted": None if noise.predicted is None else noise.predicted[k],
            "error": None if error is None else error[k],
            "gap": gap,
            "smoothness": smooth,
            "bound": bound,
            "curvature": limit.curvature,
            "rate_limit": limit.rate,
            "why": limit.why,
        }


def _noise(noise: Noise, why: str) -> Record:
    return {
        "measured": None if noise.measured is None else sum(noise.measured),
        "predicted": None if noise.predicted is None else sum(noise.predicted),
        "bound": noise.bound,
        "why": why,
    }
