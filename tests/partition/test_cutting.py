import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, call, tensors_in
from stalegrid.partition.cutting import finest, partition
from stalegrid.programs.messages import TensorSpec
from stalegrid.programs.ties import Tie

torch.set_num_threads(1)


def noise(*shape: int, key: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(key))


class Residual(nn.Module):
    """A long skip over every layer and a short one over one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.third = nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.5))
        self.fourth = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.first(x)
        h = self.norm(skip)
        h = self.relu(self.second(h))
        h = self.third(h) * self.scale + h
        return self.fourth((h + skip).flatten(1))


def compose(stages: list[Any], *inputs: Tensor) -> Any:
    for stage in stages:
        made = stage(*inputs)
        inputs = made if isinstance(made, tuple) else (made,)
    return made


def names(module: nn.Module) -> set[str]:
    return {n for n, _ in module.named_parameters()}


CUTS = [
    [],
    ["norm"],
    ["second"],
    ["third"],
    ["add"],
    ["fourth"],
    ["second", "third"],
    ["norm", "fourth"],
    ["norm", "second", "third"],
    ["norm", "second", "third", "fourth"],
]


@pytest.mark.parametrize("cuts", CUTS, ids=",".join)
def test_stages_one_after_the_other_are_the_model_with_its_gradients(cuts: list[str]) -> None:
    whole, x = Residual(), noise(5, 2, 3, 3)
    model = copy.deepcopy(whole)
    stages = partition(model, (x,), len(cuts) + 1, cuts).stages(model)
    assert len(stages) == len(cuts) + 1
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    made, expected = compose(stages, mine), whole(theirs)
    assert torch.equal(made, expected)
    made.backward(noise(5, 3))
    expected.backward(noise(5, 3))
    assert torch.equal(mine.grad, theirs.grad)
    for (name, p), q in zip(model.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    for (name, b), c in zip(model.named_buffers(), whole.buffers(), strict=True):
        assert torch.equal(b, c), name


def test_every_parameter_belongs_to_one_stage_under_its_own_name() -> None:
    model = Residual()
    stages = partition(model, (noise(5, 2, 3, 3),), 3, ["second", "add"]).stages(model)
    assert [names(stage) for stage in stages] == [
        {"first.weight", "first.bias", "norm.weight", "norm.bias"},
        {"second.weight", "second.bias", "third.weight", "third.bias", "scale"},
        {"fourth.weight", "fourth.bias"},
    ]
    assert [{n for n, _ in stage.named_buffers()} for stage in stages] == [
        {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"},
        set(),
        set(),
    ]


def test_skipped_values_travel_through_the_stages_in_between() -> None:
    x = noise(5, 2, 3, 3)
    cut = partition(Residual(), (x,), 4, ["norm", "third", "fourth"])
    crossing = TensorSpec((5, 4, 3, 3), (36, 9, 3, 1), torch.float32)
    assert cut.layouts == ((crossing,), (crossing, crossing), (TensorSpec((5, 36), (36, 1), torch.float32),))
    assert cut.names == ("norm", "third", "fourth")
    model = Residual()
    stages = cut.stages(model)
    skip = stages[0](x)
    assert torch.equal(stages[1](skip)[0], skip)


def test_layouts_know_the_memory_order_and_integers() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(9, 4)
            self.fc = nn.Linear(4, 3)

        def forward(self, words: Tensor) -> Tensor:
            return self.fc(self.embedding(words).transpose(0, 1).transpose(0, 1)) * (words > 2).unsqueeze(-1)

    cut = partition(Words(), (torch.randint(0, 9, (5, 6)),), 2, ["fc"])
    assert cut.layouts == ((TensorSpec((5, 6), (6, 1), torch.int64), TensorSpec((5, 6, 4), (24, 4, 1), torch.float32)),)
    x = noise(5, 2, 3, 3).contiguous(memory_format=torch.channels_last)
    model = Residual().to(memory_format=torch.channels_last)
    assert partition(model, (x,), 2, ["norm"]).layouts[0][0].stride == (36, 1, 12, 4)


def test_the_model_is_left_as_it_is() -> None:
    model = Residual().eval()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    partition(model, (noise(5, 2, 3, 3),), 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_one_stage_is_the_model() -> None:
    model = Residual()
    for cuts in (None, []):
        cut = partition(model, (noise(5, 2, 3, 3),), 1, cuts)
        assert (cut.cuts, cut.names, cut.layouts) == ((), (), ())
        (stage,) = cut.stages(model)
        assert names(stage) == names(model)


@pytest.mark.parametrize("stages", [2, 3, 4, 5])
def test_balanced_stages_are_the_model_and_each_has_parameters(stages: int) -> None:
    whole, x = Residual(), noise(5, 2, 3, 3)
    model = copy.deepcopy(whole)
    cut = partition(model, (x,), stages)
    parts = cut.stages(model)
    assert len(parts) == stages
    assert len(cut.cuts) == len(cut.names) == len(cut.layouts) == stages - 1
    assert all(names(part) for part in parts)
    assert sum(len(names(part)) for part in parts) == len(names(whole))
    assert torch.equal(compose(parts, x), whole(x))


def test_the_names_of_a_balanced_cut_cut_again_there() -> None:
    model, x = Residual(), (noise(5, 2, 3, 3),)
    cut = partition(model, x, 3)
    assert partition(model, x, 3, cut.names) == cut


def test_a_partition_travels_to_another_process() -> None:
    model, x = Residual(), noise(5, 2, 3, 3)
    cut = pickle.loads(pickle.dumps(partition(model, (x,), 3, ["norm", "third"])))
    assert torch.equal(compose(cut.stages(model.eval()), x), model(x))


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            h = self.a(x)
            return self.b(h * y), h

    model = Two()
    x, y = noise(2, 3), noise(2, 3, key=1)
    stages = partition(model, (x, y), 2, ["b"]).stages(model)
    made, expected = compose(stages, x, y), model(x, y)
    assert len(made) == 2
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


def test_more_stages_than_layers_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    with pytest.raises(ConfigError, match=r"layers with parameters: 2, stages: 3\); use at most 2 stages"):
        partition(model, (noise(2, 3),), 3)


def test_an_unknown_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cut: 'fifth'\); there are: norm, second, relu, third"):
        partition(Residual(), (noise(5, 2, 3, 3),), 2, ["fifth"])


@pytest.mark.parametrize(("stages", "cuts"), [(3, ["norm"]), (2, []), (2, ["norm", "third"]), (1, ["norm"])])
def test_another_number_of_cuts_than_the_stages_need_is_refused(stages: int, cuts: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"{stages} stages need {stages - 1} cuts"):
        partition(Residual(), (noise(5, 2, 3, 3),), stages, cuts)


@pytest.mark.parametrize("cuts", [["third", "norm"], ["norm", "norm"]])
def test_cuts_follow_the_order_of_the_model(cuts: list[str]) -> None:
    with pytest.raises(ConfigError, match="order of the model, each once"):
        partition(Residual(), (noise(5, 2, 3, 3),), 3, cuts)


def test_a_cut_before_the_first_operation_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be cut there"):
        partition(Residual(), (noise(5, 2, 3, 3),), 2, ["first"])


def test_a_cut_before_a_change_in_place_is_refused_with_the_nearest_others() -> None:
    with pytest.raises(
        ConfigError,
        match=r"cut: 'relu'\).*in place afterwards \(of operation: second, changed by: relu\); near .*: 'second', 't",
    ):
        partition(Residual(), (noise(5, 2, 3, 3),), 2, ["relu"])


def test_whoever_names_the_cuts_may_have_a_stage_without_parameters() -> None:
    assert partition(Residual(), (noise(5, 2, 3, 3),), 3, ["add", "flatten"]).names == ("add", "flatten")


def test_balanced_cuts_leave_no_stage_without_parameters_be_they_frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[:3].requires_grad_(False)
    stages = partition(model, (noise(5, 3),), 3).stages(model)
    assert [len(list(stage.parameters())) for stage in stages] == [2, 2, 2]
    with pytest.raises(ConfigError, match=r"layers with parameters: 3, stages: 4"):
        partition(model, (noise(5, 3),), 4)


class Tied(nn.Module):
    """Input and output embedding are one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 3)
        self.embedding = nn.Linear(3, 4, bias=False)
        self.middle = nn.Linear(4, 4)
        self.after = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.middle(self.embedding(self.before(x)))
        return self.after(F.linear(h, self.embedding.weight.t()))


class Shared(nn.Module):
    """Two modules share one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(3, 3) for _ in range(3))
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.three(self.two(self.one(x)))


class Returned(nn.Module):
    """A parameter of the first stage is an output, as a penalty needs it."""

    def __init__(self, clone: bool = False) -> None:
        super().__init__()
        self.clone = clone
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.one.weight.clone() if self.clone else self.one.weight
        return self.two(self.one(x)), weight


class Centred(nn.Module):
    """A running mean that the first stage moves is an output."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("centre", torch.zeros(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.one(x)
        self.centre.mul_(0.5).add_(h.detach().mean(0))
        return self.two(h), self.centre


@pytest.mark.parametrize(
    ("model", "cut", "names"),
    [
        (Tied, "middle", ("embedding.weight", "embedding.weight")),
        (Shared, "two", ("one.weight", "two.weight")),
        (Returned, "two", ("one.weight", "one.weight")),
    ],
)
def test_a_cut_between_two_uses_of_a_parameter_ties_two_stages(
    model: type[nn.Module], cut: str, names: tuple[str, str]
) -> None:
    whole, x = model(), noise(2, 3)
    cut_there = partition(whole, (x,), 2, [cut])
    assert cut_there.ties == (Tie((0, 1), names),)
    one, two = cut_there.stages(whole)
    assert dict(one.named_parameters())[names[0]] is dict(two.named_parameters())[names[1]]
    with pytest.raises(ConfigError, match=rf"share a parameter \(name: {names[0]}, stages: 0, 1\) .* grid.tied out"):
        partition(model(), (x,), 2, [cut], apart=False)


def test_a_cut_between_two_uses_of_a_frozen_parameter_ties_nothing() -> None:
    model = Shared()
    model.one.weight.requires_grad_(False)
    assert partition(model, (noise(2, 3),), 2, ["two"]).ties == ()
    assert len(partition(model, (noise(2, 3),), 3).cuts) == 2


def test_a_stage_may_have_parameters_of_others_alone_where_the_user_cuts_there() -> None:
    class Again(Shared):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.three(self.one(x)), self.one.weight)

    assert [tie.stages for tie in partition(Again(), (noise(2, 3),), 2, ["linear"]).ties] == [(0, 1)]
    with pytest.raises(ConfigError, match=r"layers with parameters: 2, stages: 3"):
        partition(Again(), (noise(2, 3),), 3)


def test_what_a_buffer_held_is_returned_through_later_stages() -> None:
    model, plain = Centred(), Centred()
    plain.load_state_dict(model.state_dict())
    stages = partition(model, (noise(2, 3),), 2, ["two"]).stages(model)
    for key in range(3):
        made, expected = compose(stages, noise(2, 3, key=key)), plain(noise(2, 3, key=key))
        assert torch.equal(made[1], expected[1])
        assert torch.equal(model.centre, plain.centre)


def test_a_clone_of_a_parameter_can_be_returned_through_later_stages() -> None:
    model, x = Returned(clone=True), noise(2, 3)
    stages = partition(model, (x,), 2, ["two"]).stages(model)
    made = compose(stages, x)
    assert torch.equal(made[1], model.one.weight)
    assert names(stages[1]) == {"two.weight", "two.bias"}


def test_balancing_keeps_the_uses_of_a_parameter_together() -> None:
    model, x = Tied(), noise(2, 3)
    stages = partition(model, (x,), 3).stages(model)
    assert [names(stage) for stage in stages] == [
        {"before.weight", "before.bias"},
        {"embedding.weight", "middle.weight", "middle.bias"},
        {"after.weight", "after.bias"},
    ]
    assert torch.equal(compose(stages, x), model(x))
    assert partition(Shared(), (x,), 2).names == ("three",)
    with pytest.raises(ConfigError, match=r"name: one.weight, used: from one to two"):
        partition(Returned(), (x,), 2, apart=False)


def test_balancing_cuts_between_two_uses_where_there_is_no_other_way() -> None:
    assert [tie.stages for tie in partition(Returned(), (noise(2, 3),), 2).ties] == [(0, 1)]
    assert len(partition(Tied(), (noise(2, 3),), 4).cuts) == 3
    with pytest.raises(ConfigError, match="cannot be cut into that many stages"):
        partition(Tied(), (noise(2, 3),), 4, apart=False)


def test_what_a_model_costs_is_measured_as_finely_as_it_may_be_cut() -> None:
    assert [len(finest(Tied(), (noise(2, 3),), 9, apart=apart)) for apart in (False, True)] == [2, 3]


def test_the_last_stage_returns_what_the_model_returns_and_the_first_takes_its_arguments_one_by_one() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.top = nn.Linear(3, 3)

        def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, Any]:
            h = self.fc(x) * scale
            return {"scores": self.top(h), "rest": (None, h)}

    model, arguments = Scores(), ((noise(2, 3),), {"scale": noise(2, 1)})
    form, inputs = Form.split(arguments)
    expected = model(*arguments[0], **arguments[1])
    for cut in (partition(model, inputs, 1, form=form), partition(model, inputs, 2, ["top"], form)):
        stages = cut.stages(model)
        made = call(stages[0], cut.form, inputs)
        made = made if len(stages) == 1 else stages[1](*tensors_in(made))
        assert made["rest"][0] is None
        assert all(map(torch.equal, tensors_in(made), tensors_in(expected)))


def test_functional_dropout_survives_a_model_in_evaluation_mode() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 3)
            self.two = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.two(self.one(x)), 0.5, self.training)

    model, x = Dropping().eval(), noise(20, 3)
    stages = [stage.train() for stage in partition(model, (x,), 2, ["two"]).stages(model)]
    assert (compose(stages, x) == 0).any()


def test_complex_values_cross_a_cut_as_pairs_with_their_gradients() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(8, 8)
            self.two = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.fft.irfft(torch.fft.rfft(self.one(x)).conj(), n=8))

    whole, x = Spectral(), noise(2, 8)
    model = copy.deepcopy(whole)
    cut = partition(model, (x,), 2, ["fft_irfft"])
    assert cut.layouts == ((TensorSpec((2, 5, 2), (10, 2, 1), torch.float32),),)
    made, expected = compose(cut.stages(model), x), whole(x)
    assert torch.equal(made, expected)
    made.sum().backward()
    expected.sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), whole.parameters(), strict=True))
