"""A model cut into K stage modules, balanced by measured cost or where the user says.

Does not know: groups, methods, engines.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors, copied, in_training
from stalegrid.partition.apart import check_apart
from stalegrid.partition.balancing import balance
from stalegrid.partition.chain import Chain
from stalegrid.partition.cost import copy_seconds, measure
from stalegrid.partition.operations import Operations
from stalegrid.partition.tied import ties_of
from stalegrid.partition.trace import trace
from stalegrid.partition.trial import Trial, check, commonest, obstacle, run, valid_cuts
from stalegrid.programs import Layout, Tie, layout_of

__all__ = ["Partition", "check", "finest", "partition"]


@dataclass(frozen=True)
class Partition:
    """Where a model is cut, and its operations, so that it is traced once and every process has the same.

    Args:
        cuts: K - 1 positions in the traced model.
        names: of the operation that each cut precedes.
        layouts: what crosses each cut, for one batch.
        operations: that were cut; None for one stage.
        form: of the arguments of stage 0, where it is the model itself; None where stages take tensors one by one.
        ties: trained parameters that several stages use.
    """

    cuts: tuple[int, ...]
    names: tuple[str, ...]
    layouts: tuple[Layout, ...]
    operations: Operations | None = field(default=None, compare=False, repr=False)
    form: Form | None = None
    ties: tuple[Tie, ...] = ()

    def stages(self, model: nn.Module) -> list[nn.Module]:
        """Build the stage modules, which share their parameters with the model; one stage is the model itself.

        Args:
            model: a copy of the one that was cut; put into training mode, as a whole.
        """
        model.train()
        if self.operations is None:
            return [model]
        return _parts(Chain.read(self.operations, model), self.cuts)


def partition(
    model: nn.Module,
    inputs: Tensors,
    stages: int,
    cuts: Sequence[str] | None = None,
    form: Form | None = None,
    *,
    apart: bool = True,
) -> Partition:
    """Cut a model into stages.

    Args:
        model: left as it is.
        inputs: one batch of the size that stages will see.
        stages: K.
        cuts: names of the modules or operations that begin stages 1..K-1; None to balance measured
            forward + backward time and the copies at the cuts, smallest worst stage first.
        form: of the model's arguments; None where it takes the inputs one by one.
        apart: whether cuts may lie between the uses of a parameter; balanced ones do only where there is no other way.

    Raises:
        ConfigError: there are fewer places to cut than asked for, the cuts are no good, or the stages would compute
            something else than the model.
    """
    model = in_training(model)
    if stages == 1 and not cuts:
        check(model, inputs, form)
        return Partition((), (), (), form=form)
    chain, trial = _tried(copied(model), inputs, form)
    possible = valid_cuts(chain, trial)
    if cuts is None:
        chosen = _balanced(chain, trial, stages, possible, apart)
    else:
        chosen = _named(chain, trial, stages, possible, cuts)
    ties = ties_of(chain.model, _parts(chain, chosen), apart=apart)
    check_apart(
        dataclasses.replace(chain, model=model), chosen, inputs, form
    )  # a counter in it has not been run on yet
    names = tuple(chain.name(c) for c in chosen)
    layouts = tuple(layout_of([trial.values[n.name] for n in chain.live(c)]) for c in chosen)
    return Partition(tuple(chosen), names, layouts, chain.operations, ties=ties)


def _parts(chain: Chain, cuts: Sequence[int]) -> list[nn.Module]:
    return [chain.stage(start, stop) for start, stop in itertools.pairwise([0, *cuts, len(chain.nodes)])]


def finest(
    model: nn.Module, inputs: Tensors, most: int, form: Form | None = None, *, apart: bool = True
) -> tuple[str, ...]:
    """Return the names that cut a model into as many parts as it has, balanced.

    Args:
        model: left as it is.
        inputs: one batch of the size that stages will see.
        most: parts that are enough.
        form: of the model's arguments; None where it takes the inputs one by one.
        apart: whether cuts may lie between the uses of a parameter.
    """
    if most == 1:
        return ()
    chain, trial = _tried(in_training(model), inputs, form)
    cutter = _Cutter(chain, trial, valid_cuts(chain, trial))
    for parts in range(min(most, sum(cutter.owners)), 1, -1):
        if (found := cutter.cut(parts, apart=apart)) is not None:
            return tuple(chain.name(c) for c in found)
    return ()


def _tried(model: nn.Module, inputs: Tensors, form: Form | None) -> tuple[Chain, Trial]:
    check(copied(model), inputs, form)  # before tracing, which would take the blame
    chain = trace(model, inputs, form)
    return chain, run(chain, inputs, form)


class _Cutter:
    """Cuts a model where the slowest stage is fastest."""

    def __init__(self, chain: Chain, trial: Trial, possible: list[int]) -> None:
        self.owners = _owners(chain)
        self._possible = possible
        self._chain = chain
        self._shared = _shared_spans(chain)
        buffers = {name for name, _ in chain.model.named_buffers()}
        self._together = {name: span for name, span in self._shared.items() if name in buffers}
        self._tolls = {c: copy_seconds([trial.values[n.name] for n in chain.live(c)]) for c in possible}
        self._costs = measure(chain, trial)

    def cut(self, stages: int, *, apart: bool = False) -> list[int] | None:
        """Return the cuts, or None where there are not enough.

        Args:
            stages: K.
            apart: whether they may lie between the uses of a parameter.
        """
        allowed = partial(self._allowed, self._together if apart else self._shared)
        return balance(self._costs, stages, self._possible, self._tolls.__getitem__, allowed)

    def bound_together(self) -> list[str]:
        """Say what stays in one stage since it is used several times: the widest such parameter or buffer, if any."""
        if not self._shared:
            return []
        name, (first, last) = max(self._shared.items(), key=lambda item: item[1][1] - item[1][0])
        ends = f"from {self._chain.name(first)} to {self._chain.name(last)}"
        return [f"all uses of a parameter or buffer stay in one stage (name: {name}, used: {ends})"]

    def _allowed(self, shared: Mapping[str, tuple[int, int]], start: int, stop: int) -> bool:
        spans = shared.values()
        together = all(stop <= first or start > last or start <= first <= last < stop for first, last in spans)
        return together and any(self.owners[start:stop])


def _balanced(chain: Chain, trial: Trial, stages: int, possible: list[int], apart: bool) -> list[int]:
    cutter = _Cutter(chain, trial, possible)
    layers = sum(cutter.owners)
    if stages > layers:
        raise ConfigError(
            f"the model has fewer layers than stages (layers with parameters: {layers}, stages: {stages}); "
            f"use at most {layers} stages"
        )
    found = cutter.cut(stages)
    if found is None and apart:
        found = cutter.cut(stages, apart=True)
    if found is None:
        raise ConfigError(
            f"the model cannot be cut into that many stages (stages: {stages}, places to cut: {len(possible)}): "
            + "; ".join(
                ["each stage needs a layer with parameters", *cutter.bound_together(), *commonest(chain, trial)]
            )
        )
    return found


def _named(chain: Chain, trial: Trial, stages: int, possible: list[int], cuts: Sequence[str]) -> list[int]:
    if len(cuts) != stages - 1:
        raise ConfigError(f"{stages} stages need {stages - 1} cuts (cuts: {', '.join(cuts) or 'none'})")
    found = [chain.find(name) for name in cuts]
    for name, cut in zip(cuts, found, strict=True):
        if cut not in possible:
            raise ConfigError(
                f"the model cannot be cut there (cut: {name!r}): {obstacle(chain, trial, cut)}; near it there is: "
                f"{_near(chain, cut, possible)}"
            )
    if sorted(set(found)) != found:
        raise ConfigError(f"cuts must follow the order of the model, each once (cuts: {', '.join(cuts)})")
    return found


def _owners(chain: Chain) -> list[bool]:
    """Return of every operation whether it is the first that uses some parameter.

    Frozen ones too: a stage below all that is trained forwards, which may be most of the work.
    """
    left, first = {name for name, _ in chain.model.named_parameters()}, []
    for i in range(len(chain.nodes)):
        used = left.intersection(chain.owned(i, i + 1))
        first.append(bool(used))
        left -= used
    return first


def _near(chain: Chain, cut: int, possible: list[int]) -> str:
    closest = sorted(possible, key=lambda c: abs(c - cut))[:2]
    return ", ".join(repr(chain.name(c)) for c in closest) or "no place at all"


def _shared_spans(chain: Chain) -> dict[str, tuple[int, int]]:
    """Return first and last user of every parameter or buffer that several operations use, unless it is frozen."""
    users: dict[str, list[int]] = {}
    frozen = {name for name, p in chain.model.named_parameters() if not p.requires_grad}
    for i in range(len(chain.nodes)):
        for name in chain.owned(i, i + 1):
            if name not in frozen:
                users.setdefault(name, []).append(i)
    return {name: (u[0], u[-1]) for name, u in users.items() if len(u) > 1}
