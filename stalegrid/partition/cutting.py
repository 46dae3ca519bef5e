"""A model cut into K stage modules, balanced by measured cost or where the user says.

Does not know: groups, methods, engines.
"""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Shapes, Tensors, copied, in_training, shapes_of, shown
from stalegrid.partition.apart import check_apart
from stalegrid.partition.balancing import balance
from stalegrid.partition.capture import Capture, captures, coarse
from stalegrid.partition.chain import Chain, mark
from stalegrid.partition.cost import copy_seconds, measure
from stalegrid.partition.draws import another, masked
from stalegrid.partition.following import together
from stalegrid.partition.lying import lying_alike
from stalegrid.partition.operations import Operations
from stalegrid.partition.shaped import Cut, renamed, stages_of
from stalegrid.partition.shares import Share, shares_of, warn_unfair
from stalegrid.partition.tied import ties_of
from stalegrid.partition.trial import Trial, check, commonest, obstacle
from stalegrid.programs import Layout, Tie, layout_of

__all__ = ["Partition", "check", "finest", "partition"]


@dataclass(frozen=True)
class Variant:
    """What a model that is cut is for batches of another shape than the first.

    Args:
        cuts: positions in its operations, at the same names.
        layouts: what crosses each cut, for one batch.
        operations: that were cut.
    """

    cuts: tuple[int, ...]
    layouts: tuple[Layout, ...]
    operations: Operations = field(compare=False, repr=False)


@dataclass(frozen=True)
class Partition:
    """Where a model is cut, and its operations, so that it is captured once and every process has the same.

    Args:
        cuts: K - 1 positions in the captured model.
        names: of the module that begins at each cut, or of the operation that each cut precedes.
        layouts: what crosses each cut, for one batch.
        form: how stage 0 is called with the tensors of its arguments; None for one by one.
        operations: that were cut; None for one stage.
        captured: by what; empty for one stage.
        notes: why not by what would be asked first, and what was kept whole.
        shares: of each stage, in the model's time and in its trained parameters.
        ties: trained parameters that several stages use.
        places: at which it could have been cut; 0 for one stage.
        others: the same for batches of other shapes.
        training: whether it was cut as it trains, and not as it is evaluated.
    """

    cuts: tuple[int, ...]
    names: tuple[str, ...]
    layouts: tuple[Layout, ...]
    form: Form | None = None
    operations: Operations | None = field(default=None, compare=False, repr=False)
    captured: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)
    shares: tuple[Share, ...] = field(default=(), compare=False)
    ties: tuple[Tie, ...] = ()
    places: int = field(default=0, compare=False)
    others: tuple[Variant, ...] = ()
    training: bool = True

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The model as it is cut for batches of each shape, the first one's first; none for one stage."""
        if self.operations is None:
            return ()
        return (Variant(self.cuts, self.layouts, self.operations), *self.others)

    @property
    def shapes(self) -> tuple[Shapes, ...]:
        """The shapes of the inputs of batches that stages take; none where they take any."""
        return tuple(dict.fromkeys(variant.operations.shapes for variant in self.variants))

    def crossing(self, cut: int) -> tuple[Layout, ...]:
        """Return what crosses a cut, for one batch of each shape; what is alike once."""
        return tuple(dict.fromkeys(variant.layouts[cut] for variant in self.variants))

    def stages(self, model: nn.Module) -> list[nn.Module]:
        """Build the stage modules, which share their parameters with the model; one stage is the model itself.

        Args:
            model: a copy of the one that was cut; put into the mode in which it was, as a whole.
        """
        model.train(self.training)
        if self.operations is None:
            return [model]
        pairs = zip(self.variants, _kinds(self.variants), strict=True)
        return stages_of([Cut(Chain.read(v.operations, model), v.cuts, v.layouts, kind) for v, kind in pairs])


def partition(
    model: nn.Module,
    inputs: Tensors,
    stages: int,
    cuts: Sequence[str] | None = None,
    form: Form | None = None,
    blocks: Sequence[str] | None = None,
    *,
    apart: bool = True,
    more: Sequence[Tensors] = (),
    training: bool = True,
) -> Partition:
    """Cut a model into stages.

    Args:
        model: left as it is.
        inputs: the tensors of one batch of the size that stages will see.
        stages: K.
        cuts: names of the modules or operations that begin stages 1..K-1; None to balance measured
            forward + backward time and the copies at the cuts, smallest worst stage first.
        form: how the model is called with the tensors; None for one by one.
        blocks: paths of parts that are called in turn, each kept whole; None to follow the model's forward.
        apart: whether cuts may lie between the uses of a parameter; balanced ones do only where there is no other way.
        more: batches of other shapes, each a shape of its own; they are cut at the same names.
        training: whether it is cut as it trains, and not as it is evaluated.

    Raises:
        ConfigError: there are fewer places to cut than asked for, the cuts are no good, or the stages would compute
            something else than the model.
    """
    model = in_training(model) if training else copied(model).eval()
    if stages == 1 and not cuts:
        check(model, inputs, form)
        return Partition((), (), (), form, training=training)
    if cuts is not None and len(cuts) != stages - 1:
        raise ConfigError(f"{stages} stages need {stages - 1} cuts (cuts: {', '.join(cuts) or 'none'})")
    check(copied(model), inputs, form)  # before capturing, which would take the blame
    refused: list[ConfigError] = []
    problems: list[ConfigError] = []
    following: list[ConfigError] = []  # from what is kept whole, since what refused it could not follow it
    drawn = [(another(model, one, form), *masked(model, one, form)) for one in (inputs, *more)]
    batches = [inputs, *more, *itertools.chain.from_iterable(drawn)]
    for capture in captures(copied(model), inputs, form, blocks, stages):
        if isinstance(capture, ConfigError):
            refused.append(capture)
            continue
        try:
            captured = _of_all(batches, capture, model, form, blocks, stages)
            cutter = _Cutter(capture).common(captured)
            held = partial(_held, captured, model, batches, form, apart)
            if cuts is not None:
                variants, ties = held(_named(capture, cuts))
            else:
                variants, ties = _first_that_holds(cutter, stages, apart, inputs, held)
        except ConfigError as problem:
            (following if coarse(capture, stages) else problems).append(problem)
            continue
        made = _partition(capture, variants, cutter.costs, [*refused, *problems, *following], ties, training)
        if cuts is None:
            warn_unfair(made.shares, sum(cutter.costs), capture.whole)
        return made
    raise together([*problems[:1], *refused, *following[:1]])


Held = tuple[list[Cut], tuple[Tie, ...]]
"""A model as it is cut for batches of each shape, and what its stages share."""


def _held(
    captured: Sequence[Capture],
    model: nn.Module,
    batches: Sequence[Tensors],
    form: Form | None,
    apart: bool,
    cuts: Sequence[int],
) -> Held:
    """Cut a model for all shapes at the same names, and hold its stages against it."""
    first, *others = captured
    names = [first.chain.name(c) for c in cuts]
    kinds = _kinds(captured)
    variants = [_cut(first, cuts, kinds[0])]
    for capture, kind in zip(others, kinds[1:], strict=True):
        with _of_another_kind(capture.chain.shapes, first.chain.shapes, names):
            variants.append(_cut(capture, _named(capture, names), kind))
    ties = ties_of(first.chain.model, stages_of(variants), apart=apart)
    # A counter in the model has not been run on yet.
    fresh = [dataclasses.replace(v, chain=dataclasses.replace(v.chain, model=model)) for v in variants]
    check_apart(model, stages_of(fresh), names, batches, form)
    return variants, ties


def _cut(capture: Capture, cuts: Sequence[int], kind: int | None) -> Cut:
    chain, marks = capture.chain, [] if kind is None else [mark(kind)]
    layouts = (layout_of([*chain.crossing(c, capture.trial.values), *marks]) for c in cuts)
    return Cut(chain, tuple(cuts), tuple(layouts), kind)


def _kinds(variants: Sequence[object]) -> list[int | None]:
    """Return numbers for the kinds of batches; none for a single one."""
    return list(range(len(variants))) if len(variants) > 1 else [None]


def _first_that_holds(
    cutter: "_Cutter", stages: int, apart: bool, inputs: Tensors, held: Callable[[Sequence[int]], Held]
) -> Held:
    """Return balanced cuts; where stages are not the model, those at which gradients are laid out like values."""
    chosen = _balanced(cutter, stages, apart)
    try:
        return held(chosen)
    except ConfigError as problem:
        try:
            return held(_balanced(cutter.even(inputs), stages, apart))
        except ConfigError:
            raise problem from None


def _of_all(
    batches: Sequence[Tensors],
    first: Capture,
    model: nn.Module,
    form: Form | None,
    blocks: Sequence[str] | None,
    stages: int,
) -> list[Capture]:
    """Capture a model for batches of all kinds: of other shapes, or such as answer otherwise what a forward asks."""
    captured = [first]
    for batch in batches:
        if not any(capture.chain.foresees(batch) for capture in captured):
            captured.append(_like(first, model, form, blocks, stages, len(captured), batch))
    return captured


def _like(
    first: Capture,
    model: nn.Module,
    form: Form | None,
    blocks: Sequence[str] | None,
    stages: int,
    number: int,
    inputs: Tensors,
) -> Capture:
    """Capture a model for batches of another kind in the way in which it is captured for the first one."""
    with _of_another_kind(shapes_of(inputs), first.chain.shapes):
        check(copied(model), inputs, form)
        capture = _captured_by(first.by, captures(copied(model), inputs, form, blocks, stages))
    # Over one model, so that what stages share is known by identity.
    chain = renamed(dataclasses.replace(capture.chain, model=first.chain.model), number)
    return dataclasses.replace(capture, chain=chain)


@contextmanager
def _of_another_kind(shapes: Shapes, first: Shapes, cuts: Sequence[str] = ()) -> Iterator[None]:
    """Say of what is refused that it is so for batches of another kind than the first."""
    try:
        yield
    except ConfigError as problem:
        where = f", cuts: {', '.join(cuts)}" if cuts else ""
        kind = "with another mask" if tuple(map(tuple, shapes)) == tuple(map(tuple, first)) else "of another shape"
        raise ConfigError(
            f"the model cannot be cut for batches {kind} as for the first one (shape: {shown(shapes)}{where}): "
            f"{problem}"
        ) from problem


def _captured_by(by: str, tried: Iterable[Capture | ConfigError]) -> Capture:
    """Return the capture that was made in some way; operations of another one have other names."""
    refused: list[ConfigError] = []
    for capture in tried:
        if isinstance(capture, ConfigError):
            refused.append(capture)
        elif capture.by == by:
            return capture
    raise together(refused) if refused else ConfigError(f"only another way than {by} captures the model for them")


def _partition(
    capture: Capture,
    variants: Sequence[Cut],
    seconds: list[float],
    problems: Sequence[ConfigError],
    ties: tuple[Tie, ...],
    training: bool,
) -> Partition:
    (first, *others), chain, cuts = variants, capture.chain, variants[0].cuts
    kept = [f"{path} is kept whole{_why(chain.opaque.get(path))}" for path in capture.whole]
    shares = shares_of(chain, cuts, seconds)
    return Partition(
        cuts,
        tuple(chain.name(c) for c in cuts),
        first.layouts,
        None,
        chain.operations,
        capture.by,
        tuple([str(p) for p in problems] + kept),
        shares,
        ties,
        len(capture.places),
        tuple(Variant(v.cuts, v.layouts, v.chain.operations) for v in others),
        training,
    )


def _why(reason: str | None) -> str:
    return "" if reason is None else f": {reason}"


def finest(
    model: nn.Module,
    inputs: Tensors,
    most: int,
    form: Form | None = None,
    blocks: Sequence[str] | None = None,
    *,
    apart: bool = True,
) -> tuple[str, ...]:
    """Return the names that cut a model into as many parts as it has, balanced.

    Args:
        model: left as it is.
        inputs: the tensors of one batch of the size that stages will see.
        most: parts that are enough.
        form: how the model is called with the tensors; None for one by one.
        blocks: paths of parts that are called in turn, each kept whole; None to follow the model's forward.
        apart: whether cuts may lie between the uses of a parameter.
    """
    if most == 1:
        return ()
    model = in_training(model)
    check(copied(model), inputs, form)  # before capturing, which would take the blame
    refused: list[ConfigError] = []
    for capture in captures(model, inputs, form, blocks, most):
        if isinstance(capture, Capture):
            return _finest(_Cutter(capture), most, apart)
        refused.append(capture)
    raise together(refused)


def _finest(cutter: "_Cutter", most: int, apart: bool) -> tuple[str, ...]:
    for parts in range(min(most, cutter.layers), 1, -1):
        if (found := cutter.cut(parts, apart=apart)) is not None:
            return tuple(cutter.chain.name(c) for c in found)
    return ()


class _Cutter:
    """Cuts a model where the slowest stage is fastest."""

    def __init__(self, capture: Capture) -> None:
        self.chain, self.trial, self.possible = capture.chain, capture.trial, capture.places
        self.costs = measure(self.chain, self.trial)
        self._tolls: dict[int, float] = {}
        self._shared = _shared_spans(self.chain)
        buffers = {name for name, _ in self.chain.model.named_buffers()}
        self._together = {name: span for name, span in self._shared.items() if name in buffers}
        self._owners = [0, *itertools.accumulate(map(int, _owners(self.chain, self.trial)))]

    def even(self, inputs: Tensors) -> "_Cutter":
        """Return one that cuts only where all that crosses has its gradient laid out like itself.

        Args:
            inputs: the tensors of one batch.
        """
        alike, other = lying_alike(self.chain, inputs), copy.copy(self)
        other.possible = [c for c in self.possible if alike.issuperset(n.name for n in self.chain.live(c))]
        return other

    def common(self, captured: Sequence[Capture]) -> "_Cutter":
        """Return one that cuts only where a model can be cut at the same name for batches of all kinds.

        Args:
            captured: for these.
        """
        named = [{capture.chain.name(c) for c in capture.places} for capture in captured]
        shared, other = set.intersection(*named), copy.copy(self)
        other.possible = [c for c in self.possible if self.chain.name(c) in shared]
        return other

    @property
    def layers(self) -> int:
        """Operations that have parameters."""
        return self._owners[-1]

    def cut(self, stages: int, *, apart: bool = False) -> list[int] | None:
        """Return the cuts, or None where there are not enough.

        Args:
            stages: K.
            apart: whether they may lie between the uses of a parameter.
        """
        spans = (self._together if apart else self._shared).values()
        cuts = [c for c in self.possible if not any(first < c <= last for first, last in spans)]
        tidy = self._balance(stages, [c for c in cuts if self.chain.begins(c)])
        if tidy is not None and len(cuts) > MANY:
            return tidy
        free = self._balance(stages, cuts)
        if tidy is not None and free is not None and self._slowest(tidy) <= TIDY * self._slowest(free):
            return tidy
        return free

    def bound_together(self) -> list[str]:
        """Say what stays in one stage since it is used several times: the widest such parameter or buffer, if any."""
        if not self._shared:
            return []
        name, (first, last) = max(self._shared.items(), key=lambda item: item[1][1] - item[1][0])
        ends = f"from {self.chain.name(first)} to {self.chain.name(last)}"
        return [f"all uses of a parameter or buffer stay in one stage (name: {name}, used: {ends})"]

    def _balance(self, stages: int, cuts: Sequence[int]) -> list[int] | None:
        return balance(self.costs, stages, cuts, self._toll, self._has_layer)

    def _toll(self, cut: int) -> float:
        if cut not in self._tolls:
            self._tolls[cut] = copy_seconds(self.chain.crossing(cut, self.trial.values))
        return self._tolls[cut]

    def _slowest(self, cuts: Sequence[int]) -> float:
        tolls = [0.0, *map(self._toll, cuts), 0.0]
        spans = itertools.pairwise([0, *cuts, len(self.costs)])
        return max(sum(self.costs[a:b]) + tolls[k] + tolls[k + 1] for k, (a, b) in enumerate(spans))

    def _has_layer(self, start: int, stop: int) -> bool:
        return self._owners[stop] > self._owners[start]


MANY = 300
"""Places to cut from which on only those are looked at where a module begins: the search grows with their square."""

TIDY = 1.1
"""Times the slowest stage of the best cuts that one may take so that cuts lie where modules begin."""


def _balanced(cutter: _Cutter, stages: int, apart: bool) -> list[int]:
    layers = cutter.layers
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
            f"the model cannot be cut into that many stages (stages: {stages}, places to cut: "
            f"{len(cutter.possible)}): "
            + "; ".join(
                [
                    "each stage needs a layer with parameters",
                    *cutter.bound_together(),
                    *commonest(cutter.chain, cutter.trial),
                ]
            )
        )
    return found


def _named(capture: Capture, cuts: Sequence[str]) -> list[int]:
    chain = capture.chain
    found = [chain.find(name) for name in cuts]
    for name, cut in zip(cuts, found, strict=True):
        if cut not in capture.places:
            raise ConfigError(
                f"the model cannot be cut there (cut: {name!r}): {obstacle(chain, capture.trial, cut)}; near it there "
                f"is: {_near(chain, cut, capture.places)}"
            )
    if sorted(set(found)) != found:
        raise ConfigError(f"cuts must follow the order of the model, each once (cuts: {', '.join(cuts)})")
    return found


def _owners(chain: Chain, trial: Trial) -> list[bool]:
    """Return of every operation whether it is the first that uses some parameter.

    Frozen ones too: a stage below all that is trained forwards, which may be most of the work.  What is to be trained
    and gets no gradient makes no stage.
    """
    named, first = chain.model.named_parameters(), []
    left = {name for name, p in named if not p.requires_grad or name in trial.reached}
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
