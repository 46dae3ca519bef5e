"""Models of transformers in three stages: the plain model to the bit, or refused, as the page of architectures says."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import stalegrid
from stalegrid.errors import ConfigError
from stalegrid.objects import Form, call, tensors_in
from stalegrid.partition import partition
from stalegrid.seeds import drawing
from tests.models import vision
from tests.models.holding import Samples, hold, optimizer
from tests.models.page import PAGE, keep, rows

torch.set_num_threads(1)
logging.getLogger("transformers").setLevel(logging.ERROR)

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from tests.models import architectures  # noqa: E402  (made of transformers)

pytestmark = [
    pytest.mark.thorough,
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


ONES = torch.ones_like(architectures.MASK)
# One that hides something from the first batch on is in the samples of all above.
MASKS = {
    "none": None,
    "hiding nothing": ONES,
    "hiding something later": ONES.clone().index_put_((torch.tensor(6), torch.tensor(11)), torch.tensor(0)),
}


def masked(name: str, mask: Tensor | None) -> dict[str, Tensor]:
    """Return the samples of a model with other masks."""
    batch = {each: tensor for each, tensor in CASES[name][2].items() if each != "attention_mask"}
    return batch if mask is None else {**batch, "attention_mask": mask}


@pytest.mark.parametrize(
    ("name", "mask"), [*(("LlamaForCausalLM", mask) for mask in MASKS), ("Qwen2ForCausalLM", "hiding something later")]
)
def test_grouped_attention_is_that_of_the_plain_loop_whatever_masks_hide(name: str, mask: str) -> None:
    model = architectures.made(name, dropout=False)
    assert model.config._attn_implementation == "sdpa"
    assert hold(model, masked(name, MASKS[mask])).verdict == "to the bit"


def trained(batch: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """Return what there is after five updates of a Llama, on two batches in turn."""
    made = stalegrid.train(
        architectures.made("LlamaForCausalLM", dropout=False),
        DataLoader(Samples(batch), batch_size=4),
        optimizer=optimizer,
        micro_batches=1,
        updates=5,
        quiet=True,
        **options,
    )
    return dict(made.model.named_parameters())


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


# Each mask is held against the plain loop above; here, where engines differ, each is cut once.
@pytest.mark.parametrize(
    ("stages", "mask"), [(1, "hiding something later"), (2, "none"), (4, "hiding something later")]
)
def test_grouped_attention_is_the_same_on_every_engine_stale_or_not(stages: int, mask: str) -> None:
    batch = masked("LlamaForCausalLM", MASKS[mask])
    cuts = [f"model.layers.{i}" for i in range(4 - stages, 3)] if stages > 1 else None
    for method in ("1f1b", "pipedream"):
        found = trained(batch, stages=stages, cuts=cuts, method=method, engine="processes")
        assert same(found, trained(batch, stages=stages, cuts=cuts, method=method, engine="simulator"))
        if method == "1f1b" or stages == 1:
            whole = architectures.made("LlamaForCausalLM", dropout=False)
            updating = optimizer(whole.named_parameters())
            for rows in (slice(4), slice(4, 8), slice(4), slice(4, 8), slice(4)):
                updating.zero_grad()
                whole(**{each: tensor[rows] for each, tensor in batch.items()}).loss.backward()
                updating.step()
            assert same(found, dict(whole.named_parameters()))


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


DROPPING = [name for name in CASES if architectures.drops(name) and name not in REFUSED]


@pytest.mark.parametrize("name", DROPPING[::2])
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
        (
            REFUSED[0],
            r"^the model's forward cannot be traced .*modeling_bloom.py:\d+: .*custom autograd function.*blocks",
        ),
        (REFUSED[1], r"modeling_deberta.py:\d+: .*depends on the values of tensors.*blocks"),
    ],
)
def test_a_refusal_names_the_line(name: str, words: str) -> None:
    form, inputs = Form.split(((), CASES[name][2]))
    with pytest.raises(ConfigError, match=words):
        partition(architectures.made(name, dropout=False), inputs, 3, None, form)
