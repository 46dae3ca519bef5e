"""What a trial of a stage must not show: what a late backward or a second forward would lose, and what nobody trains.

Does not know: views, corrections, other stages.

Whether late backwards are exact: a stage is forwarded, its weights are overwritten with noise, and its backward must
still give the gradients of an undisturbed one.  A custom autograd function that keeps a parameter in its context, or
activation checkpointing, fails this.  Where graphs are made by a second forward, it must repeat the first.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import changes, held, leaves, tensors_of
from stalegrid.plans.task import Task
from stalegrid.plans.trials.trial import Trial, said, same


def check_reading(stage: int, trial: Trial, inputs: tuple[Tensor, ...]) -> None:
    """Refuse a forward that changes trained parameters, where it would change a copy of them that is thrown away."""
    weights = trial.site.weights
    before = weights.flat.clone()
    trial.forward(inputs, batch=2)
    moved = [e.name for e, p in weights.places() if not same([p.detach()], [e.view(before)])]
    if moved:
        raise ConfigError(
            f"the forward changes a trained parameter in place (stage: {stage}, name: {moved[0]}), as an embedding "
            "with max_norm does, which a view that forwards at other weights, or a learner, would lose; take view "
            "stashed on a grid, or do it in the optimizer"
        )


def check_tied(stage: int, tied: Sequence[str], trial: Trial, inputs: tuple[Tensor, ...]) -> None:
    """Refuse a forward that changes a tied parameter, whose other uses would not see that."""
    tensors = tensors_of(trial.site.weights.module)
    before = {name: (tensors[name]._version, tensors[name].detach().clone()) for name in tied}
    trial.forward(inputs)
    trial.forward(inputs, batch=1)
    changed = [
        name
        for name, (modified, old) in before.items()
        if tensors[name]._version != modified or not same([tensors[name].detach()], [old])
    ]
    if changed:
        raise ConfigError(
            f"the forward changes a tied parameter in place (stage: {stage}, name: {changed[0]}), as an embedding with "
            "max_norm does, and the other stages that use it would not see that; do it in the optimizer, or keep all "
            "uses in one stage (grid.tied: together)"
        )


def moving(trial: Trial, inputs: tuple[Tensor, ...]) -> frozenset[str]:
    """Return the frozen parameters that a forward changes, such as moving averages of those that are trained."""
    weights = trial.site.weights
    before = {name: tensor.clone() for name, tensor in weights.still().items()}
    with said(f"a stage cannot be forwarded (stage: {trial.site.unit.stage})"):
        trial.forward(inputs)
        weights.flat[: weights.trained] *= 1.0625  # as little as an update; an average of equals would not change
        trial.forward(inputs, batch=1)
    now = tensors_of(weights.module)
    changed = {n: now[n] for n, old in before.items() if now[n].shape != old.shape or not same([now[n]], [old])}
    for name, tensor in changed.items():
        if not isinstance(tensor, nn.Parameter) or tensor.dtype != weights.flat.dtype:
            raise ConfigError(
                f"the forward changes a tensor of another type than the parameters (name: {name}, type: "
                f"{tensor.dtype}, parameters: {weights.flat.dtype}), which replicas cannot share; give it their type"
            )
    return frozenset(changed)


def check_leaves(task: Task, trial: Trial) -> None:
    """Refuse a graph that gives gradients to what nobody trains."""
    stage = trial.stage
    known = {id(x) for x in [*trial.site.weights.module.parameters(), *stage.inputs(0)]}
    foreign = [leaf for leaf in leaves(stage.outputs(0)) if id(leaf) not in known]
    if not foreign:
        return
    loss = trial.task.loss.named_parameters() if isinstance(trial.task.loss, nn.Module) else ()
    names = {id(p): f"the model's own {n}" for n, p in task.model.named_parameters()}
    names |= {id(p): f"{n} of the loss" for n, p in loss}
    shown = names.get(id(foreign[0]), f"a tensor of shape {tuple(foreign[0].shape)}")
    raise ConfigError(
        f"the loss or the forward has a gradient for what nobody trains (it is: {shown}); make it a parameter of the "
        "model and read it there: what a loss needs of parameters, such as a penalty, is an output of the model"
    )


def check_gradients(stage: int, trial: Trial) -> None:
    """Refuse a stage that would not be trained."""
    trained = trial.site.weights.trainable()
    if trained and all(p.grad is None for p in trained):
        raise ConfigError(
            f"no parameter of a stage has a gradient (stage: {stage}), so it would not be trained: its outputs depend "
            "on none, or its forward runs under no_grad or detaches them"
        )


def check_late(stage: int, exact: Trial, late: Trial, inputs: tuple[Tensor, ...]) -> None:
    """Hold a backward after another forward and a change of the weights against the one without."""
    outputs = late.forward(inputs)
    with said(f"a second forward of this stage fails (stage: {stage})"):
        late.forward(inputs, batch=1)
    late.disturb()
    with said(f"a late backward of this stage fails (stage: {stage})"):
        late.backward(outputs)
    if not same(exact.gradients(), late.gradients()):
        raise ConfigError(
            f"a late backward of this stage would not see the weights of its forward (stage: {stage}): activation "
            "checkpointing, or a custom autograd function that keeps a parameter in its context instead of "
            "save_for_backward; change that, give the stage staleness 0, or take view recomputed"
        )


def check_repeats(stage: int, trial: Trial, inputs: tuple[Tensor, ...]) -> None:
    """Hold the second forward of a batch, with another one in between, against the first."""
    module = trial.site.weights.module
    before = held(module)
    first = trial.forward(inputs)
    remembered = [name for name in changes(before, held(module)) if name not in tensors_of(module)]
    trial.forward(inputs, batch=1)
    trial.recompute()
    if not same(first, trial.stage.outputs(0)):
        raise ConfigError(
            f"a second forward of the same batch gives other outputs (stage: {stage}): its forward reads a buffer "
            "or an attribute that it also changes, or draws random numbers of its own; take view stashed"
        )
    if remembered:
        raise ConfigError(
            f"a second forward of the same batch would change an attribute once more (stage: {stage}, attribute: "
            f"{remembered[0]}); keep it in a buffer, which a second forward leaves as it is, or take view stashed"
        )
