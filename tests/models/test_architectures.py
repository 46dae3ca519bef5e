"""Models of transformers, small and with drawn weights, captured and cut into three: the plain model to the bit."""

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

torch.set_num_threads(1)
logging.getLogger("transformers").setLevel(logging.ERROR)

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of what transformers and torch.export think of their own calls
    pytest.mark.timeout(120),
]

DRAW = torch.Generator().manual_seed(0)
WORDS = torch.randint(3, 60, (4, 12), generator=DRAW)
MASK = torch.ones(4, 12, dtype=torch.long).index_fill(1, torch.tensor([10, 11]), 0)
IMAGES = torch.randn(2, 3, 32, 32, generator=DRAW)
SOUND = torch.randn(2, 400, generator=DRAW)

TEXT = {"input_ids": WORDS, "attention_mask": MASK}
BOTH = {**TEXT, "decoder_input_ids": WORDS[:, :7], "use_cache": False}
PICTURE = {"pixel_values": IMAGES}

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DEEP = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
SMALL = {**DEEP, "vocab_size": 64, "max_position_embeddings": 32, "tie_word_embeddings": False, **SPECIAL}
GROUPED = {**SMALL, "num_key_value_heads": 1}
GPT = {
    "vocab_size": 64,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 2,
    "tie_word_embeddings": False,
    **SPECIAL,
}
SIGHT = {**DEEP, "image_size": 32, "patch_size": 8}
HEARD = {
    **DEEP,
    "vocab_size": 64,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "layerdrop": 0.0,
    "classifier_proj_size": 8,
}
PAIRED = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 32,
    **SPECIAL,
}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
RELATIVE = {"pos_att_type": ["c2p", "p2c"], "relative_attention": True}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "GPT2LMHeadModel": ("GPT2Config", GPT, {**TEXT, "labels": WORDS}),
    "GPTJForCausalLM": ("GPTJConfig", {**GPT, "rotary_dim": 4}, TEXT),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", SMALL, TEXT),
    "LlamaForCausalLM": ("LlamaConfig", GROUPED, TEXT),
    "MistralForCausalLM": ("MistralConfig", {**GROUPED, "sliding_window": 4}, TEXT),
    "Qwen2ForCausalLM": ("Qwen2Config", GROUPED, TEXT),
    "Qwen3ForCausalLM": ("Qwen3Config", {**GROUPED, "head_dim": 8}, TEXT),
    "GemmaForCausalLM": ("GemmaConfig", {**GROUPED, "head_dim": 8}, TEXT),
    "Gemma3ForCausalLM": ("Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 4}, TEXT),
    "PhiForCausalLM": ("PhiConfig", SMALL, TEXT),
    "Phi3ForCausalLM": ("Phi3Config", SMALL, TEXT),
    "OPTForCausalLM": ("OPTConfig", {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 16}, TEXT),
    "FalconForCausalLM": ("FalconConfig", SMALL, TEXT),
    "MptForCausalLM": (
        "MptConfig",
        {"vocab_size": 64, "d_model": 16, "n_layers": 3, "n_heads": 2, "max_seq_len": 32, "tie_word_embeddings": False},
        TEXT,
    ),
    "StableLmForCausalLM": ("StableLmConfig", {**SMALL, "num_key_value_heads": 2}, TEXT),
    "Starcoder2ForCausalLM": ("Starcoder2Config", GROUPED, TEXT),
    "OlmoForCausalLM": ("OlmoConfig", GROUPED, TEXT),
    "CohereForCausalLM": ("CohereConfig", GROUPED, TEXT),
    "GraniteForCausalLM": ("GraniteConfig", GROUPED, TEXT),
    "MixtralForCausalLM": ("MixtralConfig", {**GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1}, TEXT),
    "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 16}, TEXT),
    "MambaForCausalLM": ("MambaConfig", {**SMALL, "state_size": 4}, {"input_ids": WORDS}),
    "BertForSequenceClassification": ("BertConfig", SMALL, {**TEXT, "labels": torch.tensor([0, 1, 1, 0])}),
    "RobertaForSequenceClassification": ("RobertaConfig", SMALL, TEXT),
    "DistilBertForSequenceClassification": (
        "DistilBertConfig",
        {"vocab_size": 64, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32},
        TEXT,
    ),
    "AlbertForSequenceClassification": ("AlbertConfig", {**SMALL, "embedding_size": 16, "num_hidden_groups": 3}, TEXT),
    "ElectraForSequenceClassification": ("ElectraConfig", {**SMALL, "embedding_size": 16}, TEXT),
    "DebertaForSequenceClassification": ("DebertaConfig", {**SMALL, **RELATIVE}, TEXT),
    "ModernBertForSequenceClassification": ("ModernBertConfig", SMALL, TEXT),
    "XLMRobertaForTokenClassification": ("XLMRobertaConfig", SMALL, TEXT),
    "MPNetForSequenceClassification": ("MPNetConfig", SMALL, TEXT),
    "FNetForSequenceClassification": ("FNetConfig", SMALL, {"input_ids": WORDS}),
    "T5EncoderModel": (
        "T5Config",
        {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2, "pad_token_id": 0},
        TEXT,
    ),
    "BartModel": ("BartConfig", PAIRED, BOTH),
    "ViTForImageClassification": ("ViTConfig", SIGHT, PICTURE),
    "DeiTForImageClassification": ("DeiTConfig", SIGHT, PICTURE),
    "BeitForImageClassification": ("BeitConfig", {**SIGHT, "drop_path_rate": 0.0}, PICTURE),
    "Dinov2ForImageClassification": ("Dinov2Config", {**SIGHT, "mlp_ratio": 2}, PICTURE),
    "SwinForImageClassification": (
        "SwinConfig",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4},
        PICTURE,
    ),
    "ConvNextForImageClassification": (
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "image_size": 32},
        PICTURE,
    ),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        PICTURE,
    ),
    "SegformerForSemanticSegmentation": (
        "SegformerConfig",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [2, 1],
            "hidden_sizes": [8, 16],
            "num_attention_heads": [1, 2],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 16,
        },
        PICTURE,
    ),
    "CLIPModel": (
        "CLIPConfig",
        {"text_config": SMALL, "vision_config": {**SIGHT, "num_hidden_layers": 2}, "projection_dim": 8},
        {"input_ids": WORDS[:2], "attention_mask": MASK[:2], **PICTURE},
    ),
    "Wav2Vec2ForSequenceClassification": ("Wav2Vec2Config", HEARD, {"input_values": SOUND}),
    "WhisperForConditionalGeneration": (
        "WhisperConfig",
        {
            **PAIRED,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 16,
            "decoder_start_token_id": 1,
            "tie_word_embeddings": False,
        },
        {
            "input_features": SOUND[:, :256].reshape(2, 8, 32),
            "decoder_input_ids": WORDS[:2, :7],
            "use_cache": False,
        },
    ),
    "ASTForAudioClassification": (
        "ASTConfig",
        {**DEEP, "patch_size": 4, "max_length": 32, "num_mel_bins": 16, "frequency_stride": 4, "time_stride": 4},
        {"input_values": torch.randn(2, 32, 16, generator=DRAW)},
    ),
}


def made(name: str) -> tuple[nn.Module, Form, tuple[Tensor, ...]]:
    """Return a model with drawn weights, and how it is called with what."""
    config, options, inputs = CASES[name]
    with drawing(torch.device("cpu"), 0, "architecture"):
        model: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**options))
    return model.train(), *Form.split(((), inputs))


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


@pytest.mark.parametrize("name", CASES)
def test_an_architecture_in_three_stages_is_the_plain_model(name: str) -> None:
    plain, form, inputs = made(name)
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
    model, form, inputs = made(name)
    path = {"G": "transformer.h", "L": "model.layers", "V": "vit.layers"}[name[0]]
    cut = partition(model, inputs, 3, [f"{path}.1", f"{path}.2"], form)
    assert cut.names == (f"{path}.1", f"{path}.2")


def test_a_custom_backward_in_the_middle_is_refused_with_its_line() -> None:
    config = transformers.BloomConfig(vocab_size=64, hidden_size=16, n_layer=3, n_head=2, tie_word_embeddings=False)
    form, inputs = Form.split(((), TEXT))
    with pytest.raises(ConfigError, match=r"modeling_bloom.py:\d+: .*custom autograd function.*blocks"):
        partition(transformers.BloomForCausalLM(config), inputs, 3, None, form)
