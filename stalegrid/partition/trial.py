"""One run of a model, and of its traced operations, on a batch: what cannot be trained or cut shows here.

Does not know: costs, groups, messages.
"""

import dataclasses
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors, call, copied, leaves, nudge, tensors_in, tensors_of
from stalegrid.partition.chain import Chain
from stalegrid.partition.outputs import parted
from stalegrid.seeds import drawing

CPU = torch.device("cpu")

_MANY = (
    "; what is no pair (input, target) goes whole to the model: let it take that, or return pairs, each half of which "
    "may be a tree"
)
_PLACES = "; of a list of numbers in a sample each place is a tensor: return the list as a tensor"


@dataclass(frozen=True)
class Trial:
    """What one run of a traced model shows.

    Attributes:
        values: of every node, by name.
        changed: storage of the arguments that an operation changes in place, by name.
        places: position of each operation in the model, by name.
        learning: names of the nodes whose values depend on what is trained.
        reached: names of the parameters that get a gradient.
    """

    values: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, set[int]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    learning: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)

    @cached_property
    def changers(self) -> dict[int, list[tuple[int, str]]]:
        """By storage: the operations that change it in place, each with its position."""
        found: dict[int, list[tuple[int, str]]] = {}
        for name, storages in self.changed.items():
            for storage in storages:
                found.setdefault(storage, []).append((self.places[name], name))
        return found


class _Interpreter(fx.Interpreter):
    def __init__(self, chain: Chain) -> None:
        # All values are kept: a cut may lie anywhere.
        super().__init__(chain.module(chain.graph, chain.constants), garbage_collect_values=False)
        self._model = chain.model
        self.trial = Trial(places={n.name: i for i, n in enumerate(chain.nodes)})

    def run(self, *args: Any, **kwargs: Any) -> Any:
        made = super().run(*args, **kwargs)
        # At the end: what is made empty may be filled in place with what depends on parameters.
        learning = (n.name for n, value in self.env.items() if any(y.requires_grad for y in tensors_in(value)))
        self.trial.learning.update(learning)
        ends = {id(leaf) for leaf in leaves(tensors_in(made))}
        self.trial.reached.update(name for name, p in self._model.named_parameters() if id(p) in ends)
        return made

    def run_node(self, n: fx.Node) -> Any:
        arguments = [v for m in n.all_input_nodes if isinstance(v := self.env[m], Tensor)]
        versions = [v._version for v in arguments]
        result = super().run_node(n)
        changed = {_storage(v) for v, version in zip(arguments, versions, strict=True) if v._version != version}
        if changed:
            self.trial.changed[n.name] = changed
        self.trial.values[n.name] = result.detach() if isinstance(result, Tensor) else result
        return result


def obstacle(chain: Chain, trial: Trial, cut: int) -> str | None:
    """Return why a model cannot be cut at a place; None where it can: only tensors cross, unchanged afterwards.

    Args:
        chain: a captured model.
        trial: one run of it.
        cut: the place.
    """
    crossing = {n.name: trial.values[n.name] for n in chain.live(cut)}
    # What every stage can make for itself is the work of none.
    if not crossing or chain.anywhere.issuperset(chain.nodes[:cut]) or chain.anywhere.issuperset(chain.nodes[cut:]):
        return "nothing crosses the cut"
    for name, value in crossing.items():
        if not isinstance(value, Tensor):
            shown = value if isinstance(value, bool | int | float | str) else type(value).__name__
            return f"what crosses the cut is no tensor (of operation: {name}, value: {shown})"
        by = trial.changers.get(_storage(value), [])
        late = next((n for i, n in by if i >= cut), None)
        if late is not None:
            return f"what crosses the cut is changed in place afterwards (of operation: {name}, changed by: {late})"
    if chain.nodes[cut].target is operator.getitem:
        return "an operation is not cut from a part of what was made before it"
    return None


def valid_cuts(chain: Chain, trial: Trial) -> list[int]:
    """Return the cuts to which there is no obstacle.

    Args:
        chain: a traced model.
        trial: one run of it.
    """
    return [i for i in range(1, len(chain.nodes)) if obstacle(chain, trial, i) is None]


def commonest(chain: Chain, trial: Trial) -> list[str]:
    """Say what is in the way at most places of those that cannot be cut, if there are any."""
    found = Counter(text for i in range(1, len(chain.nodes)) if (text := obstacle(chain, trial, i)) is not None)
    return [f"at most of the other places, {text}" for text, _ in found.most_common(1)]


def run(chain: Chain, inputs: Tensors, form: Form | None = None) -> Trial:
    """Run the captured model on one batch and hold it against the model itself, and so with slightly other parameters.

    What a forward does to the model only shows where something has moved: a moving average of equals does not change.

    Raises:
        ConfigError: the model cannot be run, see :func:`check`, or the captured operations compute something else.
    """
    moved = copied(chain.model)
    nudge(moved)
    _hold(dataclasses.replace(chain, model=moved), inputs, form)
    return _hold(chain, inputs, form)


def _hold(chain: Chain, inputs: Tensors, form: Form | None) -> Trial:
    model, interpreter = copied(chain.model), _Interpreter(chain)
    expected = check(model, inputs, form)
    versions = {name: constant._version for name, constant in chain.constants.items()}
    # By one key, so that runs that are compared drop the same values.
    with drawing(CPU, 0, "trial"):
        _compare(chain, model, expected, lambda: chain.form.fill(interpreter.run(*(x.clone() for x in inputs))))
    if any(chain.constants[name]._version != version for name, version in versions.items()):
        raise ConfigError(
            f"the model changes in place a tensor that its forward makes (model: {type(model).__name__}), which is "
            "made only once when it is traced; put that part into a function marked with torch.fx.wrap"
        )
    return interpreter.trial


def check(model: nn.Module, inputs: Tensors, form: Form | None = None, device: torch.device = CPU) -> Any:
    """Run a model on one batch, changing its buffers, and return its output, a tree of tensors.

    Args:
        model: in the mode in which it trains.
        inputs: the tensors of one batch.
        form: how the model is called with them; None for one by one.
        device: that all of it is on.

    Raises:
        ConfigError: the model does not accept the data, there is no tensor in its output, it makes or replaces a
            parameter or buffer, or a part of it is scripted.
        torch.OutOfMemoryError: there is not enough memory on the device.
    """
    _refuse_scripted(model)
    before = tensors_of(model)
    lazy = [name for name, tensor in before.items() if is_lazy(tensor)]
    if lazy:
        raise ConfigError(
            f"the first forward makes a parameter or buffer (name: {lazy[0]}); run the model on one batch before"
        )
    _refuse_elsewhere(before, inputs, device)
    with drawing(device, 0, "trial"):
        try:
            # Of copies: a model may change its input in place.
            made = call(model, form, [x.clone() for x in inputs])
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # the model is the user's: anything can be raised
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
            types = ", ".join(str(x.dtype).removeprefix("torch.") for x in inputs)
            # Of several tensors the cause may be that there are targets among them.
            hint = _MANY * (len(inputs) > 1) + _PLACES * (sum(x.ndim == 1 for x in inputs) > 1)
            text = f"the model does not accept a batch of the data (shapes: {shapes}, types: {types}): {problem}{hint}"
            raise ConfigError(text) from problem
    after = tensors_of(model)
    made_now = [name for name in after if name not in before]
    if made_now:
        raise ConfigError(
            f"the model makes a buffer in its forward (buffer: {made_now[0]}); make it in __init__, or run the model "
            "on one batch before, and change it in place"
        )
    replaced = [name for name in before if after.get(name) is not before[name]]
    if replaced:
        raise ConfigError(
            f"the model replaces a buffer instead of changing it in place (buffer: {replaced[0]}); write "
            "buffer.copy_(value) for buffer = value"
        )
    if not tensors_in(made):
        raise ConfigError(
            f"there is no tensor in the model's output (it is: {type(made).__name__}); return tensors, alone or in "
            "tuples, lists, dictionaries or dataclasses"
        )
    return made


def differing(expected: Any, found: Any) -> bool:
    """Return whether two outputs differ, in a bit of a tensor or in their form."""
    (form, tensors), (other, others) = parted(expected), parted(found)
    return form != other or len(tensors) != len(others) or not all(map(same, tensors, others))


def _compare(chain: Chain, model: nn.Module, expected: Any, captured: Callable[[], Any]) -> None:
    problem = None
    try:
        found = captured()
    except Exception as error:  # a branch that the data would not have taken can raise anything
        problem = next(iter(str(error).splitlines()), type(error).__name__)
    else:
        problem = "its outputs differ" if differing(expected, found) else None
    held = zip(tensors_of(model).items(), tensors_of(chain.model).values(), strict=True)
    problem = problem or next((f"{name} differs" for (name, a), b in held if not same(a, b)), None)
    if problem is not None:
        raise ConfigError(
            f"tracing changes what the model computes (model: {type(model).__name__}): {problem}; where the forward "
            "depends on values, put that part into a module of its own, or into a function marked with torch.fx.wrap"
        )


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are the same to the bit; what is no number is the same as such."""
    # torch.equal would take NaN for unlike itself.
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _refuse_elsewhere(tensors: Mapping[str, Tensor], inputs: Sequence[Tensor], device: torch.device) -> None:
    """Refuse a model or samples on a GPU: everything is tried on the CPU first."""
    for name, tensor in tensors.items():
        if tensor.device.type != device.type:
            raise ConfigError(
                f"the model is on another device than the CPU (name: {name}, device: {tensor.device}); give it on the "
                "CPU: copies of its stages go to the device of the training, which the setting device names"
            )
    for x in inputs:
        if x.device.type != device.type:
            raise ConfigError(
                f"the samples are on another device than the CPU (device: {x.device}); give them on the CPU: batches "
                "go to the device of the training, which the setting device names"
            )


def _refuse_scripted(model: nn.Module) -> None:
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule) and tensors_of(part):
            raise ConfigError(
                f"a part compiled by torch.jit keeps its parameters to itself (part: {name or 'the whole model'}); "
                "give the module that it was compiled from"
            )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
