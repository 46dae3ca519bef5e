import copy
import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from stalegrid.engines.distributed.packing import Packer
from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import Form, call
from stalegrid.partition.apart import check_apart
from stalegrid.partition.capture import kinds_of
from stalegrid.partition.chain import Chain
from stalegrid.partition.export import export
from stalegrid.partition.operations import Operations
from stalegrid.partition.shaped import Cut
from stalegrid.partition.trace import trace
from stalegrid.partition.trial import run, valid_cuts
from tests.generators import global_states
from tests.partition.test_trace import LOST, Reversed, Three, drawn, noise

torch.set_num_threads(1)


def followed(model: nn.Module, *inputs: Tensor, form: Form | None = None) -> Chain:
    """Export a model and hold it against itself, whole and cut at every seventh place."""
    given = inputs or (noise(3, 4),)
    chain = export(model.train(), given, form)
    trial = run(chain, given, form)
    chain = replace(chain, kinds=kinds_of(trial))
    apart = [c for c in valid_cuts(chain, trial) if not {*chain.owned(0, c)} & {*chain.owned(c, len(chain.nodes))}]
    for cuts in ([], *([c] for c in apart[::7])):
        held_apart(chain, cuts, given, form)
    return chain


def held_apart(chain: Chain, cuts: list[int], inputs: tuple[Tensor, ...], form: Form | None = None) -> None:
    check_apart(chain.model, list(Cut(chain, tuple(cuts), ()).stages()), [chain.name(c) for c in cuts], [inputs], form)


def names(chain: Chain) -> list[str]:
    return [chain.name(i) for i in range(len(chain.nodes)) if chain.begins(i)]


class Layered(nn.Module):
    """Blocks in a list, dropout, normalisation with statistics, a branch on a size of what it has computed."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList(copy.deepcopy(block) for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(x)
            x = h + x if h.shape == x.shape else h
        return self.head(x)


def test_places_have_the_names_of_modules() -> None:
    found = names(followed(Layered()))
    assert found[0] == "blocks.0"
    assert {"blocks.1", "blocks.2", "blocks.2.1", "head"} <= set(found)


def test_every_module_is_found_where_it_begins() -> None:
    chain = export(Layered().train(), (noise(3, 4),))
    assert chain.name(chain.find("blocks.2")) == "blocks.2"
    assert chain.find("blocks.2.0") == chain.find("blocks.2") < chain.find("blocks.2.1") < chain.find("head")


def test_what_is_filled_in_place_has_its_gradient_behind_a_cut() -> None:
    def filling(m: Three, x: Tensor) -> Tensor:
        h = torch.zeros(3, 4)
        h[:, :2] = m.a(x)[:, :2]
        return m.c(m.b(h))

    chain = followed(Three(filling))
    trial = run(chain, (noise(3, 4),))
    held_apart(replace(chain, kinds=kinds_of(trial)), [chain.find("b")], (noise(3, 4),))


def no_gradients(m: Three, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = m.a(x).relu() + 1
    return m.c(m.b(h) + h)


def nested(m: Three, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = m.a(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scale = m.a(x).exp()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = m.b(h) * scale
    return m.c(h.float())


def noisy(m: Three, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.c(m.b(h + torch.randn_like(h) + torch.randn(4)) * torch.bernoulli(torch.full((4,), 0.5)))


def listed(m: Three, x: Tensor) -> Tensor:
    return m.c(m.b(m.a(x) + torch.tensor([1.0, 2.0, 3.0, 4.0])) * m.plain.float())


def positioned(m: Three, x: Tensor) -> Tensor:
    mask = torch.arange(4).unsqueeze(0) <= torch.arange(len(x)).unsqueeze(1)
    return m.c(m.b(m.a(x).masked_fill(mask, 0.0)).masked_fill(~mask, 1.0))


def sized(m: Three, x: Tensor) -> Tensor:
    h = m.a(x)
    assert len(h) == h.size(0)
    assert h.ndim == 2
    return m.c(m.b(h.view(h.numel() // h.shape[-1], -1)))


def spectral(m: Three, x: Tensor) -> Tensor:
    return m.c(torch.fft.irfft(torch.fft.rfft(m.b(m.a(x))).conj(), n=4))


def weighted(m: Three, x: Tensor) -> Tensor:
    scale = m.b.weight.exp()
    return m.c(F.linear(m.a(x), scale.t()) + F.linear(x, scale))


def smoothed(m: Three, x: Tensor) -> Tensor:
    with torch.no_grad():
        m.table.mul_(0.9).add_(m.a.weight.mean() * 0.1)
    return m.c(m.b(m.a(x)) + m.table[: len(x)])


FOLLOWED = [no_gradients, nested, noisy, listed, positioned, sized, spectral, weighted, smoothed]


@pytest.mark.parametrize("forward", FOLLOWED, ids=lambda f: f.__name__)
def test_what_a_forward_does_is_done_by_its_operations(forward: Any) -> None:
    followed(Three(forward))


@pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_weights_that_are_computed_are_computed_where_they_are_used(make: Any) -> None:
    followed(nn.Sequential(make(nn.Linear(4, 4)), nn.ReLU(), make(nn.Linear(4, 4))))


@pytest.mark.parametrize("forward", [*LOST, drawn], ids=lambda f: f.__name__)
def test_what_would_be_lost_is_refused_or_differs_in_nothing(forward: Any) -> None:
    refused = {"checkpointed", "offloaded", "differentiated", "seeded", "remembered", "logged", "drawn", "given"}
    if forward.__name__ in refused:
        with pytest.raises(ConfigError, match=r"cannot be traced \(model: Three, by: torch.export.*as blocks"):
            export(Three(forward).train(), (noise(3, 4),))
        return
    followed(Three(forward))


def test_a_part_without_gradients_within_autocast_which_torch_export_loses_is_found_out() -> None:
    def lost(m: Three, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = m.b(m.a(x))
            with torch.no_grad():
                scale = m.a(x).float().exp()
        return m.c(h.float() * scale)

    with pytest.raises(ConfigError, match=r"the gradient of a\.\w+ differs"):
        followed(Three(lost))


def test_a_function_that_is_mapped_is_refused_where_it_is_outermost_and_kept_whole_where_it_is_not() -> None:
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(lambda row: torch.tanh(self.a(row)))(x)

    with pytest.raises(ConfigError, match=r"torch\.vmap.*a module of its own"):
        followed(Mapped())
    chain = trace(nn.Sequential(nn.Linear(4, 4), Mapped()), (noise(3, 4),))
    assert [chain.name(i) for i in range(len(chain.nodes))] == ["0", "1"]


def test_a_custom_backward_and_a_hook_on_a_tensor_are_refused() -> None:
    def hooked(m: Three, x: Tensor) -> Tensor:
        h = m.a(x)
        h.register_hook(lambda g: g * 2)
        return m.c(h)

    with pytest.raises(ConfigError, match="custom autograd function"):
        export(Reversed().train(), (noise(3, 4),))
    with pytest.raises(ConfigError, match=r"line: test_export.py:\d+: h.register_hook.*hangs a hook on a tensor"):
        export(Three(hooked).train(), (noise(3, 4),))


def test_a_branch_on_values_is_refused_with_its_line_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    def branching(m: Three, x: Tensor) -> Tensor:
        return m.c(x) if m.a(x).sum() > 0 else m.b(x)

    expected = r"line: test_export.py:\d+: return m.c\(x\) if.*\): what is done depends on the values of tensors"
    with pytest.raises(ConfigError, match=expected):
        export(Three(branching).train(), (noise(3, 4),))
    assert capfd.readouterr() == ("", "")


@dataclass
class Output:
    """Of a class that nobody has registered."""

    scores: Tensor
    cache: Any = None
    hidden: tuple[Tensor, ...] = ()


class Cache:
    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


class Called(nn.Module):
    """Takes arguments by name and returns a tree with a cache in it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, words: Tensor, *, mask: Tensor | None = None, scale: float = 2.0, **more: Any) -> Any:
        h = self.a(words) * scale
        h = h if mask is None else h * mask
        return OrderedDict(out=Output(self.b(h), Cache(h), (h,)), steps=3, none=None)


def test_a_model_is_called_by_its_form_and_returns_its_tree() -> None:
    model = Called().train()
    form, inputs = Form.split(((), {"mask": noise(3, 4), "words": noise(3, 4) + 1}))
    chain = followed(model, *inputs, form=form)
    stages = [chain.stage(0, 3), chain.stage(3, len(chain.nodes))]
    made = stages[1](*stages[0](*inputs))
    expected = call(model, form, inputs)
    assert torch.equal(made["out"].scores, expected["out"].scores)
    assert torch.equal(made["out"].hidden[0], expected["out"].hidden[0])
    assert (made["steps"], made["none"], list(made)) == (3, None, list(expected))
    with pytest.raises(TrainingError, match="kind: Cache, asked for: keys"):
        _ = made["out"].cache.keys


def test_what_depends_on_nothing_is_made_in_the_stage_that_needs_it() -> None:
    chain = export(Three(positioned).train(), (noise(3, 4),))
    cut = chain.find("b")
    assert [n.name for n in chain.live(cut)] == ["masked_fill"]


def test_operations_travel() -> None:
    model = Three(nested).train()
    chain = export(model, (noise(3, 4),))
    packed = io.BytesIO()
    Packer(packed).dump(chain.operations)
    read: Operations = pickle.loads(packed.getvalue())
    again = Chain.read(read, model)
    x = noise(3, 4)
    assert torch.equal(again.stage(0, len(again.nodes))(x), model(x))


def test_devices_are_asked_of_the_stage() -> None:
    chain = export(Three(noisy).train(), (noise(3, 4),))
    stage = chain.stage(0, len(chain.nodes)).to("meta")
    assert stage(noise(3, 4).to("meta")).device.type == "meta"


def test_exporting_leaves_the_model_and_the_generators_as_they_are() -> None:
    model = Layered().train()
    state, tensors = global_states(), copy.deepcopy(model.state_dict())
    export(model, (noise(3, 4),))
    assert global_states() == state
    assert all(torch.equal(t, tensors[n]) for n, t in model.state_dict().items())


class Begun(nn.Module):
    """A model that does something at its first forward, once and for all, as transformers hangs its hooks."""

    def __init__(self, begin: Any) -> None:
        super().__init__()
        self.first, self.last, self.begin = nn.Linear(4, 4), nn.Linear(4, 4), begin
        self.begun, self.kept = False, 1.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.begun:
            self.begun = True
            self.begin(self, x)
        return self.last(self.first(x)) * self.kept


def hanging(model: Begun, x: Tensor) -> None:
    def double(module: nn.Module, inputs: Any, made: Tensor) -> Tensor:
        return made * 2

    model.first.register_forward_hook(double)


def keeping(model: Begun, x: Tensor) -> None:
    model.kept = float(x.shape[0])


def test_hooks_that_a_first_forward_hangs_are_followed() -> None:
    chain = followed(Begun(hanging))
    assert sum("mul" in node.name for node in chain.nodes) == 2


def test_a_value_that_a_first_forward_keeps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"changes what the model holds \((begun|kept)\)"):
        export(Begun(keeping).train(), (noise(3, 4),))
