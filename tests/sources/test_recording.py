"""What is recorded of a factory is what it does."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import tensors_of
from stalegrid.sources.recording import Memories, Recording, record
from tests.sources.modules import various


def in_turn(recording: Recording) -> dict[str, Tensor]:
    """Do all steps in their order, as the factory would have done."""
    memories: Memories = {}
    with torch.no_grad():
        for step in recording.steps:
            step.do(memories, recording.sizes)
    return {name: place.tensor(memories) for name, place in recording.places.items()}


def test_all_steps_in_turn_are_the_model_that_the_factory_makes_to_the_bit() -> None:
    torch.manual_seed(3)
    expected = various()
    model, recording = record(various)
    torch.manual_seed(3)
    values = in_turn(recording)
    assert list(tensors_of(model)) == list(tensors_of(expected))
    for name, tensor in tensors_of(expected).items():
        found = values.get(name, tensors_of(model)[name])
        assert (found.dtype, found.stride()) == (tensor.dtype, tensor.stride()), name
        assert torch.equal(found, tensor), name


def test_a_model_is_built_without_memory_and_with_all_else() -> None:
    model, _ = record(various)
    whole = various()
    assert [str(m) for m in model.modules()] == [str(m) for m in whole.modules()]
    assert {n for n, t in tensors_of(model).items() if t.is_meta} == set(tensors_of(whole)) - {
        "norm.num_batches_tracked"
    }
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in whole.parameters()]
    assert model["tied"].weight is model["embedding"].weight  # type: ignore[index]


def test_a_tensor_is_made_of_what_it_depends_on_alone() -> None:
    _, recording = record(lambda: nn.Sequential(*(nn.Linear(3, 3) for _ in range(20))))
    assert len(recording.steps) == 80
    assert len(recording.history("7.weight")) == 1  # empty and then filled: the first is of no account
    assert recording.value("7.weight", lambda _: nullcontext()).shape == (3, 3)


@pytest.mark.parametrize("name", ["GPT2Config", "LlamaConfig", "MixtralConfig", "BertConfig", "ModernBertConfig"])
def test_models_of_transformers_are_recorded_to_the_bit(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 23}
    if name != "GPT2Config":
        sizes |= {"intermediate_size": 32}
    config = getattr(transformers, name)(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0)

    def factory() -> nn.Module:
        made: nn.Module = transformers.AutoModel.from_config(config)
        return made

    torch.manual_seed(3)
    expected = tensors_of(factory())
    model, recording = record(factory)
    torch.manual_seed(3)
    values = in_turn(recording)
    assert list(tensors_of(model)) == list(expected)
    assert len(values) >= len(dict(model.named_parameters()))
    for key, tensor in expected.items():
        assert torch.equal(values.get(key, tensors_of(model)[key]), tensor), key


def test_the_default_type_is_that_of_then() -> None:
    def half() -> nn.Module:
        torch.set_default_dtype(torch.bfloat16)
        try:
            return nn.Linear(3, 3)
        finally:
            torch.set_default_dtype(torch.float32)

    _, recording = record(half)
    assert recording.value("weight", lambda _: nullcontext()).dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


def reads_a_norm() -> nn.Module:
    made = nn.Linear(3, 4)
    made.weight.data /= made.weight.norm().item()
    return made


def lists_values() -> nn.Module:
    made = nn.Linear(3, 4)
    made.levels = made.bias.tolist()  # type: ignore[assignment]
    return made


def through_numpy() -> nn.Module:
    made = nn.Linear(3, 4)
    made.weight.detach().numpy().sort()
    return made


def branches() -> nn.Module:
    made = nn.Linear(3, 4)
    if made.bias.sum() > 0:
        made.bias.data.neg_()
    return made


@pytest.mark.parametrize(
    ("factory", "name"),
    [(reads_a_norm, "weight"), (lists_values, "bias"), (through_numpy, "weight"), (branches, "bias")],
)
def test_a_factory_that_reads_values_is_refused_with_the_parameter(factory: Callable[[], nn.Module], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"without memory \(at the parameter or tensor: {name} of Linear\): "):
        record(factory)


def test_draws_of_a_generator_of_ones_own_are_refused() -> None:
    def factory() -> nn.Module:
        made = nn.Linear(3, 4)
        nn.init.normal_(made.weight, generator=torch.Generator().manual_seed(3))
        return made

    with pytest.raises(ConfigError, match="draws from a generator of its own"):
        record(factory)


def test_a_factory_that_seeds_is_refused() -> None:
    def factory() -> nn.Module:
        torch.manual_seed(7)  # twice, for two layers that are alike
        return nn.Linear(3, 4)

    with pytest.raises(ConfigError, match=r"it seeds random numbers \(seed: 7\)"):
        record(factory)
    torch.manual_seed(7)
    assert torch.initial_seed() == 7


def test_a_parameter_without_a_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the first forward makes a parameter or buffer \(name: 0.weight\)"):
        record(lambda: nn.Sequential(nn.LazyLinear(3)))


def test_values_that_would_be_lost_are_refused() -> None:
    def factory() -> nn.Module:
        made = nn.Linear(3, 4)
        torch.tensor([0.0, 0.0, 0.0, 0.0]).copy_(made.bias.detach())
        return made

    with pytest.raises(ConfigError, match="copies what has no content yet into a tensor that has"):
        record(factory)


def test_what_is_made_of_numbers_keeps_them() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = nn.Parameter(torch.tensor([1.0, 2.0]))
            self.register_buffer("both", torch.stack([torch.tensor([3.0, 4.0]), torch.zeros(2)]))

    model, recording = record(Given)
    assert torch.equal(model.levels, torch.tensor([1.0, 2.0]))  # type: ignore[arg-type]
    value = recording.value("both", lambda _: nullcontext())
    assert torch.equal(value, torch.tensor([[3.0, 4.0], [0.0, 0.0]]))


def test_parameters_in_each_others_memory_are_refused() -> None:
    def factory() -> nn.Module:
        made = nn.Linear(3, 3)
        made.other = nn.Parameter(made.weight.detach()[0])
        return made

    with pytest.raises(ConfigError, match=r"share memory \(names: weight, other\)"):
        record(factory)


def test_a_tensor_that_is_no_parameter_or_buffer_is_refused() -> None:
    def factory() -> nn.Module:
        made = nn.Sequential(nn.Linear(3, 3))
        made[0].table = torch.zeros(3)
        return made

    with pytest.raises(ConfigError, match=r"no parameter or buffer \(attribute: 0.table\)"):
        record(factory)


def test_a_factory_that_makes_no_module_or_fails_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"makes no torch.nn.Module \(it makes: list\)"):
        record(lambda: [nn.Linear(3, 3)])  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match="cannot be built without memory: integer division"):
        record(lambda: nn.Linear(1 // 0, 3))
