"""The stages of a cut model, each with a copy of its own as they will train, held against the model as a whole.

Does not know: how cuts are chosen, costs, groups, engines.

Only tensors cross a cut.  A counter of a module that two stages use, an object that two modules share, or a number that
the forward around a module reads of it stays behind, and one run of the whole does not show that.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors, copied, tensors_of
from stalegrid.partition.chain import Chain
from stalegrid.partition.trial import CPU, check, parts, same
from stalegrid.seeds import drawing

BATCHES = 4
"""State is there after the first batch; a few more see a module that changes its ways after some."""


def check_apart(chain: Chain, cuts: Sequence[int], inputs: Tensors, form: Form | None = None) -> None:
    """Run copies of the stages one after the other over a few batches, and hold them against a copy of the model.

    Parameters move in between, as they will: what a stage reads of another one's in any other way does not.

    Args:
        chain: a traced model, in the mode in which it will run; left as it is.
        cuts: where it is cut.
        inputs: one batch, that is run again and again.
        form: of the model's arguments; None where it takes the inputs one by one.

    Raises:
        ConfigError: the stages compute something else than the model.
    """
    model = copied(chain.model)
    stages = [copied(chain.stage(a, b)) for a, b in itertools.pairwise([0, *cuts, len(chain.nodes)])]
    for batch in range(BATCHES):
        expected = check(model, inputs, form)
        problem = _difference(model, expected, stages, inputs)
        if problem is not None:
            names = ", ".join(chain.name(c) for c in cuts)
            raise ConfigError(
                f"the stages compute something else than the model (cuts: {names}, batch: {batch}): {problem}; what "
                "Python keeps in one stage does not reach another (a module or an object that both use, or an "
                "attribute that the forward around a module reads): keep it in a buffer that one stage uses, or cut "
                "elsewhere"
            )
        for module in (model, *stages):
            _move(module)


def _difference(model: nn.Module, expected: Tensors, stages: Sequence[nn.Module], inputs: Tensors) -> str | None:
    try:
        with drawing(CPU, 0, "trial"):
            found = _through(stages, inputs)
    except Exception as error:  # a stage without what another one keeps can raise anything
        return next(iter(str(error).splitlines()), type(error).__name__)
    if len(found) != len(expected) or not all(map(same, found, expected)):
        return "its outputs differ"
    whole = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    own = (item for stage in stages for item in tensors_of(stage).items())
    return next((f"{name} differs" for name, tensor in own if not same(tensor, whole[name])), None)


def _through(stages: Sequence[nn.Module], inputs: Tensors) -> Tensors:
    tensors = tuple(x.clone() for x in inputs)
    for k, stage in enumerate(stages):
        leaves = (x.detach().requires_grad_(k > 0 and x.is_floating_point()) for x in tensors)
        tensors = parts(stage(*leaves))
    return tensors


def _move(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                # By a sixteenth: no type rounds that away, and values stay in their range.
                parameter.mul_(1.0625)
