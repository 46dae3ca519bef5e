"""Models of transformers in three stages: the plain model to the bit, or refused, as the page of architectures says."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, call, tensors_in
from stalegrid.partition import partition
from stalegrid.seeds import drawing
from tests.models import vision
from tests.models.holding import hold
from tests.models.page import PAGE, keep, rows

torch.set_num_threads(1)
logging.getLogger("transformers").setLevel(logging.ERROR)

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from tests.models import architectures  # noqa: E402  (made of transformers)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of what transformers and torch.export think of their own calls
    pytest.mark.timeout(120),
]

CASES = architectures.CASES
REFUSED = ("BloomForCausalLM", "DebertaForSequenceClassification with its own loss")


@pytest.mark.parametrize("name", CASES)
def test_ten_updates_in_three_stages_are_those_of_a_plain_loop(name: str) -> None:
    keep(name, hold(architectures.made(name, dropout=False), CASES[name][2]), torch, transformers)


def test_the_page_has_all_architectures_and_counts_them() -> None:
    assert set(CASES) <= rows().keys()
    assert [name for name in CASES if rows()[name][-1].startswith("refused")] == list(REFUSED)
    counts = f"Of {len(CASES)} models of transformers {len(CASES) - len(REFUSED)} work, and all {len(vision.MODELS)} "
    assert counts in PAGE.read_text()


def test_grouped_attention_that_leaves_out_a_mask_is_refused() -> None:
    plain, (form, inputs) = architectures.made("LlamaForCausalLM", dropout=False), called("LlamaForCausalLM")
    plain.set_attn_implementation("sdpa")
    with pytest.raises(ConfigError, match=r"batch: 2\).*attn_implementation='eager'"):
        partition(plain, inputs, 2, ["model.layers.1"], form)


def run(function: Callable[[], Any]) -> tuple[Tensor, ...]:
    """Return the tensors that a call gives under one seed, after a backward from all of them."""
    with drawing(torch.device("cpu"), 0, "run"):
        found = tensors_in(function())
    scores = [y.float().square().mean() for y in found if y.requires_grad]
    torch.stack(scores).sum().backward()
    return found


def through(stages: list[nn.Module], inputs: tuple[Tensor, ...]) -> Any:
    given: Any = inputs
    for stage in stages:
        given = stage(*given) if isinstance(given, tuple) else stage(given)
    return given


def called(name: str) -> tuple[Form, tuple[Tensor, ...]]:
    """Return how a model is called, and with what."""
    inputs = {each: tensor[:4] for each, tensor in CASES[name][2].items() if each != "labels"}
    return Form.split(((), inputs))


@pytest.mark.parametrize("name", [name for name in CASES if architectures.drops(name) and name not in REFUSED])
def test_stages_drop_what_the_model_drops(name: str) -> None:
    plain, (form, inputs) = architectures.made(name, dropout=True), called(name)
    model = copy.deepcopy(plain)
    stages = partition(model, inputs, 3, None, form).stages(model)
    found = run(lambda: through(stages, inputs))
    expected = run(lambda: call(plain, form, inputs))
    # The cache of keys and values, which some return, stays behind.
    assert len(found) <= len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=False))
    for (path, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), path
        assert a.grad is None or torch.equal(a.grad, b.grad), path
    for (path, a), b in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b), path


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM", "ViTForImageClassification"])
def test_a_model_of_n_blocks_can_be_cut_into_n_stages_at_its_blocks(name: str) -> None:
    model, (form, inputs) = architectures.made(name, dropout=True), called(name)
    path = {"G": "transformer.h", "L": "model.layers", "V": "vit.layers"}[name[0]]
    cut = partition(model, inputs, 3, [f"{path}.1", f"{path}.2"], form)
    assert cut.names == (f"{path}.1", f"{path}.2")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (REFUSED[0], r"modeling_bloom.py:\d+: .*custom autograd function.*blocks"),
        (REFUSED[1], r"modeling_deberta.py:\d+: .*depends on the values of tensors.*blocks"),
    ],
)
def test_a_refusal_names_the_line(name: str, words: str) -> None:
    form, inputs = Form.split(((), CASES[name][2]))
    with pytest.raises(ConfigError, match=words):
        partition(architectures.made(name, dropout=False), inputs, 3, None, form)
