import copy
import operator
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import Form
from stalegrid.partition.chain import Chain
from stalegrid.partition.trace import trace as traced
from stalegrid.partition.trial import run, valid_cuts
from tests.generators import global_states

torch.set_num_threads(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def trace(model: nn.Module, *inputs: Tensor) -> Chain:
    return traced(model.train(), inputs or (noise(3, 4),))


def operations(model: nn.Module) -> list[str]:
    chain = trace(model)
    return [chain.name(i) for i in range(len(chain.nodes))]


def cut_names(model: nn.Module, *inputs: Tensor) -> list[str]:
    chain = trace(model, *inputs)
    return [chain.name(i) for i in valid_cuts(chain, run(chain, inputs))]


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x))) + x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Inner(), Inner())
        self.scale = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x) * self.scale)


def test_operations_are_named_by_their_modules_or_functions() -> None:
    assert operations(Outer()) == [
        "blocks",
        "blocks.0.tanh",
        "blocks.0.b",
        "blocks.0.add",
        "blocks.1",
        "blocks.1.tanh_1",
        "blocks.1.b",
        "blocks.1.add_1",
        "mul",
        "head",
    ]


def test_a_module_that_is_used_twice_gives_its_operations_names_of_their_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x))

    chain = trace(Twice())
    assert [chain.name(i) for i in range(2)] == ["fc", "fc_1"]
    assert [chain.find(chain.name(i)) for i in range(2)] == [0, 1]


def test_every_operation_is_found_by_its_name_and_every_module_by_its_first_operation() -> None:
    chain = trace(Outer())
    assert [chain.find(chain.name(i)) for i in range(len(chain.nodes))] == list(range(len(chain.nodes)))
    assert chain.find("blocks") == chain.find("blocks.0") == 0
    assert chain.find("blocks.1") == chain.find("blocks.1.a") == 4


@pytest.mark.parametrize("name", ["block", "blocks.2", "heads", "", "scale"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"cut: '{name}'\); there are: blocks.0.b, blocks.1, blocks.1.b, head"):
        trace(Outer()).find(name)


def test_live_values_are_those_that_are_used_again() -> None:
    chain = trace(Outer())
    names = [[n.name for n in chain.live(cut)] for cut in range(5)]
    assert names == [["input_0"], ["input_0", "blocks_0_a"], ["input_0", "tanh"], ["input_0", "blocks_0_b"], ["add"]]


def test_live_values_include_early_outputs() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.a(x)
            return torch.exp(self.b(y)), y

    chain = trace(Early())
    assert [n.name for n in chain.live(2)] == ["a", "b"]


def test_owned_parameters_have_their_names_in_the_model() -> None:
    model = Outer()
    model.blocks[1].a.weight = model.blocks[0].a.weight
    chain = trace(model)
    assert chain.owned(0, 1) == ["blocks.0.a.weight", "blocks.0.a.bias"]
    assert chain.owned(4, 5) == ["blocks.0.a.weight", "blocks.1.a.bias"]
    assert chain.owned(8, 9) == ["scale"]
    assert chain.owned(3, 4) == []
    assert set(chain.owned(0, len(chain.nodes))) == dict(model.named_parameters()).keys()


def test_a_stage_shares_its_parameters_with_the_model() -> None:
    model = Outer()
    stage = trace(model).stage(4, 10)
    assert set(dict(stage.named_parameters())) == {
        "blocks.1.a.weight",
        "blocks.1.a.bias",
        "blocks.1.b.weight",
        "blocks.1.b.bias",
        "scale",
        "head.weight",
        "head.bias",
    }
    assert all(p is model.get_parameter(n) for n, p in stage.named_parameters())


@pytest.mark.parametrize("cut", range(1, 10))
def test_two_stages_at_any_cut_are_the_model(cut: int) -> None:
    model = Outer()
    chain = trace(model)
    made = chain.stage(0, cut)(noise(3, 4))
    assert torch.equal(
        chain.stage(cut, 10)(*made) if isinstance(made, tuple) else chain.stage(cut, 10)(made), model(noise(3, 4))
    )


class OnlyIf(nn.Module):
    """A branch that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if x.sum() > 0 else x


def test_a_module_that_cannot_be_followed_is_one_operation() -> None:
    model = nn.Sequential(Inner(), OnlyIf(), nn.Linear(4, 2))
    assert operations(model) == ["0", "0.tanh", "0.b", "0.add", "1", "2"]
    chain = trace(model)
    assert chain.owned(4, 5) == [f"1.inner.{n}" for n in ("a.weight", "a.bias", "b.weight", "b.bias")]


def test_only_the_innermost_module_that_cannot_be_followed_is_kept_whole() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(4, 4)
            self.branch = OnlyIf()
            self.after = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(self.branch(self.before(x)))

    parts = ["0", "0.branch", "0.after", "1", "1.branch", "1.after"]
    assert operations(nn.Sequential(Around(), Around())) == parts


def test_many_blocks_of_a_class_take_few_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: list[object] = []
    follow = fx.Tracer.trace
    monkeypatch.setattr(fx.Tracer, "trace", lambda *args: traces.append(args) or follow(*args))
    model = nn.Sequential(*(OnlyIf() for _ in range(20)))
    assert operations(model) == [str(i) for i in range(20)]
    assert len(traces) == 6


def test_branches_on_shapes_are_fine_in_a_module_of_their_own() -> None:
    class Wide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.shape[1] > 3 else x

    model = nn.Sequential(nn.Linear(4, 4), Wide(), nn.Linear(4, 3), Wide())
    chain = trace(model)
    assert [chain.name(i) for i in range(4)] == ["0", "1", "2", "3"]
    assert torch.equal(run(chain, (noise(2, 4),)).values["_3"], model(noise(2, 4)))


def test_shapes_may_be_used_without_branches() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y.view(y.size(0) // 2, -1))

    model = Flat()
    assert cut_names(model, noise(6, 4)) == ["size", "b"]  # between them a number crosses


def test_an_outermost_forward_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"\(model: OnlyIf, by: torch.fx, line: test_trace.py:\d+: return self.inner.*\).*module of its own",
    ):
        trace(OnlyIf())


def test_a_model_that_computes_nothing_is_refused() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ConfigError, match="computes nothing"):
        trace(Nothing())


class Reverse(torch.autograd.Function):
    """Identity whose gradient changes sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Reversed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return Reverse.apply(self.fc(x))


def test_a_custom_backward_survives() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Reversed())
    chain = trace(model)
    assert operations(model) == ["0", "1"]
    chain.stage(0, 2)(noise(3, 4)).sum().backward()
    traced = [p.grad for p in model.parameters()]
    model.zero_grad()
    model(noise(3, 4)).sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), traced, strict=True))


def test_a_custom_backward_in_the_outermost_forward_is_refused() -> None:
    with pytest.raises(ConfigError, match="custom autograd function cannot be traced"):
        trace(Reversed())


def test_custom_functions_work_as_before_after_tracing() -> None:
    with pytest.raises(ConfigError):
        trace(Reversed())
    x = noise(3).requires_grad_()
    Reverse.apply(x).sum().backward()
    assert torch.equal(x.grad, -torch.ones(3))


class InPlace(nn.Module):
    """One operation between two layers, in place or not."""

    def __init__(self, operation: Any) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)
        self.operation = operation
        self.b = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.operation(self, self.a(x)))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (lambda m, x: m.relu(x), True),
        (lambda m, x: F.relu(x, inplace=True), True),
        (lambda m, x: F.relu(x, True), True),
        (lambda m, x: F.relu(input=x, inplace=True), True),
        (lambda m, x: x.add_(1.0), True),
        (lambda m, x: torch.relu_(x), True),
        (lambda m, x: operator.iadd(x, 1.0), False),  # a trace takes += for +
        (lambda m, x: F.relu(x), False),
        (lambda m, x: x + 1.0, False),
        (lambda m, x: x.__add__(1.0), False),
        (lambda m, x: torch.relu(x), False),
    ],
)
def test_nothing_that_is_changed_in_place_afterwards_crosses_a_cut(operation: Any, expected: bool) -> None:
    model = InPlace(operation)
    chain = trace(model)
    changed_by = run(chain, (noise(3, 4),)).changed
    assert [n.name in changed_by for n in chain.nodes] == [False, expected, False]
    changed, made = chain.name(1), "b"
    assert cut_names(model, noise(3, 4)) == ([made] if expected else [changed, made])


def test_a_change_in_place_of_a_view_forbids_cuts_before_it() -> None:
    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            z = y.view(-1)
            z.mul_(2.0)
            return self.b(y)

    assert cut_names(View(), noise(3, 4)) == ["b"]


def test_a_whole_module_that_changes_its_input_in_place_forbids_the_cut() -> None:
    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2.0) if x.sum() > -1e9 else x

    assert cut_names(nn.Sequential(nn.Linear(4, 4), Doubling(), nn.Linear(4, 4)), noise(3, 4)) == ["2"]


def test_only_tensors_cross_a_cut() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            one, other = self.a(x).chunk(2, dim=1)
            return self.b(one * other)

    assert operations(Pair()) == ["a", "chunk", "getitem", "getitem_1", "mul", "b"]
    assert cut_names(Pair(), noise(3, 4)) == ["chunk", "mul", "b"]


def test_running_gives_every_value_and_leaves_the_global_generator_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    state = torch.get_rng_state()
    values = run(trace(model), (noise(3, 4),)).values
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(values["_0"], model[0](noise(3, 4)))
    assert values["_1"].shape == (3, 4)


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"does not accept a batch of the data \(shapes: \(3, 5\), types: float32\)"):
        run(trace(Outer()), (noise(3, 5),))


@pytest.mark.parametrize("wrap", [lambda y: {"scores": y}, lambda y: [y], lambda y: (y, {"scores": y})])
def test_a_model_may_return_any_tree(wrap: Any) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            return wrap(self.fc(x))

    model, x = Wrapped(), noise(3, 4)
    chain = trace(model, x)
    run(chain, (x,))
    assert Form.split(chain.stage(0, 1)(x))[0] == Form.split(model(x))[0]


def test_an_outermost_forward_that_draws_is_refused() -> None:
    class Drawing(nn.Module):
        """A draw that no stand-in takes part in happens once, when traced."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) + torch.randn(4)

    with pytest.raises(ConfigError, match="draws random numbers outside torch's own layers"):
        run(trace(Drawing()), (noise(3, 4),))


def test_a_model_may_change_the_data_in_place() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.sub_(0.5))

    assert run(trace(Centred()), (noise(3, 4),)).values["fc"].shape == (3, 4)


def follow(model: nn.Module) -> Chain:
    """Trace and check a model."""
    chain = trace(model)
    run(chain, (noise(3, 4),))
    return chain


def test_what_is_computed_without_gradients_gets_none() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.fc(x)

    model = nn.Sequential(Frozen(), nn.Linear(4, 4))
    try:
        chain = follow(model)
    except ConfigError:
        return
    chain.stage(0, len(chain.nodes))(noise(3, 4)).sum().backward()
    assert model[0].fc.weight.grad is None


def test_buffers_are_updated_at_every_forward() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
            self.register_buffer("mean", torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            self.seen.add_(1)
            self.mean.mul_(0.5).add_(y.detach().mean(0))
            return y

    traced = nn.Sequential(Counting(), nn.Linear(4, 4))
    plain = copy.deepcopy(traced)
    try:
        chain = trace(traced)
    except ConfigError:
        return
    stage = chain.stage(0, len(chain.nodes))
    for _ in range(2):
        plain(noise(3, 4))
        stage(noise(3, 4))
    for name, buffer in plain.named_buffers():
        assert torch.equal(traced.get_buffer(name), buffer), name


@pytest.mark.parametrize("default", [None, False, 2.0])
def test_an_argument_that_is_left_out_has_its_default(default: Any) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor, mask: Any = default) -> Tensor:
            y = self.fc(x)
            return torch.tanh(y * mask if mask else y)

    model = Masked()
    chain = follow(model)
    assert torch.equal(chain.stage(0, len(chain.nodes))(noise(3, 4)), model(noise(3, 4)))


def test_a_forward_of_any_number_of_inputs() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, *inputs: Tensor) -> Tensor:
            return torch.tanh(self.fc(inputs[0]))

    model = Several()
    chain = follow(model)
    assert torch.equal(chain.stage(0, len(chain.nodes))(noise(3, 4)), model(noise(3, 4)))


class Three(nn.Module):
    """Layers whose forward a test writes."""

    def __init__(self, forward: Callable[["Three", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("table", noise(5, 4), persistent=False)
        self.plain = noise(4).double()
        self.log: list[Tensor] = []
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def no_gradients(m: Three, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = m.a(x)
    return m.c(m.b(h))


def mixed_precision(m: Three, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = m.b(m.a(x))
    return m.c(h.float())


def checkpointed(m: Three, x: Tensor) -> Tensor:
    return m.c(checkpoint(lambda h: torch.tanh(m.b(h)), m.a(x), use_reentrant=False))


def offloaded(m: Three, x: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return m.c(torch.tanh(m.b(m.a(x))))


def differentiated(m: Three, x: Tensor) -> Tensor:
    x.requires_grad_()
    return torch.autograd.grad(m.c(m.b(m.a(x)).tanh()).sum(), x, create_graph=True)[0]


def seeded(m: Three, x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        h = m.a(x) + torch.randn_like(x)
    return m.c(m.b(h))


def drawn(m: Three, x: Tensor) -> Tensor:
    return m.c(m.b(m.a(x) * random.random() + float(np.random.rand()) + torch.rand(4)))


def filled(m: Three, x: Tensor) -> Tensor:
    h = torch.zeros(3, 4)
    for i in range(len(x)):
        h[i] = m.a(x)[i]
    return m.c(m.b(h))


def remembered(m: Three, x: Tensor) -> Tensor:
    h = torch.tanh(m.a(x) + m.plain.float())
    m.plain = h.detach().mean(0)
    return m.c(m.b(h))


def logged(m: Three, x: Tensor) -> Tensor:
    m.log.append(m.a(x).detach().mean(0))
    return m.c(m.b(m.a(x) + m.log[-1] * len(m.log)))


@fx.wrap
def applied(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x) if x.mean() > -1e9 else x


def given(m: Three, x: Tensor) -> Tensor:
    return m.c(applied(m.b, m.a(x)))


LOST = {
    given: r"a module is given to a function \(Linear\)",
    no_gradients: "switches gradients on or off",
    mixed_precision: "switches autocast on or off",
    checkpointed: "checkpoints or offloads",
    offloaded: "checkpoints or offloads",
    differentiated: "has a backward in it",
    seeded: "or seeds them",
    filled: "changes in place a tensor that it makes",
    remembered: r"changes what the model holds, which cannot be traced \(Three: plain\)",
    logged: r"\(Three: log\)",
}


def equal_for_three_batches(model: nn.Module) -> bool:
    """Return whether the traced operations compute and differentiate what the model does, one batch after another."""
    plain, mine = copy.deepcopy(model), copy.deepcopy(model)
    chain = trace(mine)
    stage = copy.deepcopy(chain.stage(0, len(chain.nodes)))
    same = []
    for key in range(3):
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(key))
        one, other = stage(x.clone()), plain(x.clone())
        one.sum().backward()
        other.sum().backward()
        same.append(torch.equal(one, other))
    gradients = {n: p.grad for n, p in stage.named_parameters()}
    same += [p.grad is None or torch.equal(gradients[n], p.grad) for n, p in plain.named_parameters()]
    return all(same)


@pytest.mark.parametrize("forward", LOST, ids=lambda f: f.__name__)
def test_what_a_trace_would_lose_keeps_its_module_whole_and_is_refused_outermost(forward: Any) -> None:
    with pytest.raises(ConfigError, match=rf"cannot be traced \(model: Three.*{LOST[forward]}.*module of its own"):
        trace(Three(forward))
    model = nn.Sequential(nn.Linear(4, 4), Three(forward))
    assert operations(model) == ["0", "1"]
    assert equal_for_three_batches(model)


def sized(m: Three, x: Tensor) -> Tensor:
    rows, columns = x.shape
    if x.dim() == 1 or len(x) != x.size(0) or x.dtype != torch.float32 or columns > m.a.weight.shape[0]:
        raise ValueError(x.numel())
    h = m.a(x.view(-1, columns)) + torch.arange(rows).unsqueeze(1)
    return m.c(m.b(h)).view(rows, x.size(-1))


def placed(m: Three, x: Tensor) -> Tensor:
    return m.c(m.b(m.a(x) + torch.arange(x.shape[0], device=x.device).unsqueeze(1)))


def makes_where_stand_ins_are() -> bool:
    try:
        fx.symbolic_trace(lambda x: torch.arange(1, device=x.device))
    except TypeError:
        return False
    return True


def looked_up(m: Three, x: Tensor) -> Tensor:
    assert x.shape[0] <= m.table.shape[0]
    return m.c(m.b(m.a(x) + m.table[: x.shape[0]]))


def changed(m: Three, x: Tensor) -> Tensor:
    h = m.a(x)
    m.table.mul_(0.5)[0].add_(h.detach().mean(0))
    return m.c(m.b(h + m.table.mean(0)))


def typed(m: Three, x: Tensor) -> Tensor:
    return m.c((m.b(m.a(x)) * m.plain).float())


NEWER = pytest.mark.skipif(not makes_where_stand_ins_are(), reason="torch.fx of this torch follows no device=x.device")


@pytest.mark.parametrize(
    "forward",
    [sized, pytest.param(placed, marks=NEWER), looked_up, changed, typed],
    ids=lambda f: f.__name__,
)
def test_sizes_are_known_and_buffers_are_read_at_every_forward(forward: Any) -> None:
    model = Three(forward)
    assert {"b", "c"} <= set(cut_names(model, noise(3, 4)))
    assert equal_for_three_batches(model)


def test_a_batch_of_another_shape_than_was_traced_is_refused() -> None:
    chain = trace(Three(lambda m, x: m.c(m.b(m.a(x)) / x.shape[0])))
    first, last = chain.stage(0, 2), chain.stage(2, len(chain.nodes))
    with pytest.raises(TrainingError, match=r"\(shape: \(5, 4\), cut for: \(3, 4\)\); let all samples"):
        first(noise(5, 4))
    assert last(first(noise(3, 4))).shape == (3, 4)


def test_tensors_that_are_no_buffers_are_no_weights_of_a_stage_but_move_with_it() -> None:
    chain = trace(Three(typed))
    stage = chain.stage(0, len(chain.nodes))
    assert "plain" not in " ".join(stage.state_dict())
    assert [t.dtype for _, t in stage.named_buffers()] == []
    assert stage.to("meta")(noise(3, 4).to("meta")).is_meta


def test_hooks_of_the_outermost_module_are_followed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for module in model.modules():
        module.register_forward_pre_hook(lambda m, args: (args[0] * 0.5,))
        module.register_forward_pre_hook(lambda m, args, kwargs: ((args[0] + 1.0,), kwargs), with_kwargs=True)
        module.register_forward_hook(lambda m, args, made: made * 3.0)
        module.register_forward_hook(lambda m, args, made: made - 1.0, always_call=True)
    assert equal_for_three_batches(model)


@pytest.mark.parametrize("kind", ["full_backward_hook", "full_backward_pre_hook"])
def test_hooks_on_the_gradients_of_a_module_keep_it_whole(kind: str) -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    getattr(inner, f"register_{kind}")(lambda m, *gradients: None)
    assert operations(nn.Sequential(nn.Linear(4, 4), inner)) == ["0", "1"]
    with pytest.raises(ConfigError, match=r"hooks on the gradients of a module \(Sequential\) cannot be traced"):
        trace(inner)


def test_a_compiled_model_is_refused_with_the_remedy_and_a_compiled_part_is_kept_whole() -> None:
    part = torch.compile(nn.Linear(4, 4), backend="eager")
    with pytest.raises(ConfigError, match=r"compiled model cannot be cut .*give the model that was compiled"):
        trace(part)
    assert operations(nn.Sequential(nn.Linear(4, 4), part)) == ["0", "1"]


def test_tracing_leaves_the_model_and_the_generators_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Three(logged), Three(remembered), Three(drawn)).train()
    state, held = global_states(), [set(vars(m)) for m in model.modules()]
    trace(model)
    assert global_states() == state
    assert [set(vars(m)) for m in model.modules()] == held
    assert model[1].log == []
