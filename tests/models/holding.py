"""A model in three stages, trained through the door without staleness, held against a plain torch loop.

Does not know: which models.

Outputs are seen by the loss and gradients by the optimizer, in all updates; at the end there are parameters and
buffers.  The models have no dropout: every stage draws by keys of its own, so a loop over the whole model has others.
"""

import copy
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import stalegrid
from stalegrid.errors import ConfigError
from stalegrid.objects import spread, tensors_in

STAGES, UPDATES = 3, 10


class Log(list[Any]):
    """A list that is one for all copies of what adds to it."""

    def __deepcopy__(self, memo: Any) -> "Log":
        return self


OUTPUTS = Log()
"""Of every batch whose loss was asked for, in order: a tensor each."""

GRADIENTS = Log()
"""Of every step of an optimizer, in order, by the name of the parameter; None for what has none."""


class Samples(Dataset[Any]):
    """Samples from a batch of all.

    Args:
        batch: tensors with all samples; a dictionary, or input and target.
    """

    def __init__(self, batch: dict[str, Tensor] | tuple[Tensor, Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(tensors_in(self.batch)[0])

    def __getitem__(self, i: int) -> Any:
        if isinstance(self.batch, dict):
            return {name: tensor[i] for name, tensor in self.batch.items()}
        return tuple(tensor[i] for tensor in self.batch)


class Scored:
    """A loss in which every output has a part, and which keeps the outputs."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def __call__(self, *outputs_and_targets: Any) -> Tensor:
        """Return the loss."""
        *outputs, targets = outputs_and_targets
        found = tensors_in(outputs)
        self.log.append(tuple(y.detach().clone() for y in found))
        if isinstance(targets, Tensor):
            return torch.stack([F.cross_entropy(y, targets) for y in found]).sum()
        (output,) = outputs
        if isinstance(output, Mapping) and "loss" in output:
            return output["loss"]  # type: ignore[no-any-return]
        return torch.stack([y.float().square().mean() for y in found if y.requires_grad]).sum()


scored = Scored(OUTPUTS)


class Seen(torch.optim.SGD):
    """Momentum SGD that keeps the gradients of every update."""

    log: Log

    def step(self, closure: Any = None) -> Any:
        """Update."""
        (group,) = self.param_groups
        named = zip(group["param_names"], group["params"], strict=True)
        self.log.append({name: None if p.grad is None else p.grad.clone() for name, p in named})
        return super().step(closure)


def optimizer(named_parameters: Iterable[tuple[str, nn.Parameter]], log: Log = GRADIENTS) -> Seen:
    """Make an optimizer whose updates depend on those before."""
    made = Seen(named_parameters, lr=0.02, momentum=0.9)
    made.log = log
    return made


@dataclass(frozen=True)
class Run:
    """What can be seen of ten updates."""

    outputs: list[tuple[Tensor, ...]]
    gradients: dict[str, list[Tensor | None]]
    state: dict[str, Tensor]

    @classmethod
    def seen(cls, model: nn.Module, optimizers: int) -> "Run":
        """Take what was kept of the last ten updates; the trial before a run is left out."""
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        gradients: defaultdict[str, list[Tensor | None]] = defaultdict(list)
        for step in GRADIENTS[-UPDATES * optimizers :]:
            for name, gradient in step.items():
                gradients[name].append(gradient)
        run = cls(OUTPUTS[-UPDATES:], gradients, {name: tensor.detach() for name, tensor in state.items()})
        OUTPUTS.clear()
        GRADIENTS.clear()
        return run


@dataclass(frozen=True)
class Held:
    """What came of three stages.

    Args:
        captured: by what; None where the model is refused.
        places: to cut.
        cuts: that were chosen.
        tied: parameters that several stages use.
        verdict: "to the bit", or the words of the refusal.
    """

    captured: str | None
    places: int
    cuts: tuple[str, ...]
    tied: tuple[str, ...]
    verdict: str


def hold(model: nn.Module, batch: dict[str, Tensor] | tuple[Tensor, Tensor]) -> Held:
    """Train a model in three stages and in a plain loop, on two batches in turn.

    Args:
        model: without dropout; left as it is.
        batch: all samples.

    Raises:
        AssertionError: something differs that may not.
    """
    data = Samples(batch)
    loader = DataLoader(data, batch_size=len(data) // 2)
    expected = plain(copy.deepcopy(model), loader)
    try:
        made = stalegrid.train(
            model,
            loader,
            loss=scored,
            optimizer=optimizer,
            method="1f1b",
            stages=STAGES,
            micro_batches=1,
            updates=UPDATES,
            engine="simulator",
            quiet=True,
        )
    except ConfigError as refusal:
        return Held(None, 0, (), (), str(refusal))
    found, told = Run.seen(made.model, STAGES), made.summary
    assert differing(found, expected) == []
    return Held(told["captured"], told["places"], tuple(told["cuts"]), tuple(told["tied"]), "to the bit")


def plain(model: nn.Module, loader: DataLoader[Any]) -> Run:
    """Train a model as everybody does."""
    model.train()
    updating = optimizer(model.named_parameters())
    for batch in itertools.islice(itertools.cycle(loader), UPDATES):
        outputs = model(**batch) if isinstance(batch, dict) else model(batch[0])
        loss = scored(*spread(outputs), batch if isinstance(batch, dict) else batch[1])
        updating.zero_grad()
        loss.backward()
        updating.step()
    return Run.seen(model, 1)


def differing(found: Run, expected: Run) -> list[str]:
    """Return what of two runs differs, in a bit or in being there."""
    assert found.gradients.keys() <= expected.gradients.keys()
    assert found.state.keys() == expected.state.keys()
    # What no stage trains is what the loop has no gradient for.
    gradients = {name: found.gradients.get(name, [None] * UPDATES) for name in expected.gradients}
    triples = [
        *(("outputs", a, b) for x, y in zip(found.outputs, expected.outputs, strict=True) for a, b in pairs(x, y)),
        *((f"gradient of {n}", a, b) for n, due in expected.gradients.items() for a, b in pairs(gradients[n], due)),
        *((name, found.state[name], due) for name, due in expected.state.items()),
    ]
    return [name for name, a, b in triples if not (a is b if a is None or b is None else torch.equal(a, b))]


def pairs(
    one: Sequence[Tensor | None], other: Sequence[Tensor | None]
) -> Iterable[tuple[Tensor | None, Tensor | None]]:
    """Return what stands at the same place."""
    return zip(one, other, strict=True)
