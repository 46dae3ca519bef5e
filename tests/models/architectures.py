"""Models of transformers, small and with drawn weights, each with the samples that it is trained on.

Does not know: how a model is captured or trained.

What a configuration leaves out is its default: parameters are tied where its authors tie them.
"""

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from stalegrid.seeds import drawing

DRAW = torch.Generator().manual_seed(0)
WORDS = torch.randint(3, 60, (8, 12), generator=DRAW)
MASK = torch.ones(8, 12, dtype=torch.long).index_fill(1, torch.tensor([10, 11]), 0)
KINDS = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])
IMAGES = torch.randn(4, 3, 32, 32, generator=DRAW)
SOUND = torch.randn(4, 400, generator=DRAW)

Batch = dict[str, Tensor]
TEXT = {"input_ids": WORDS, "attention_mask": MASK}
NEXT = {**TEXT, "labels": WORDS}
CLASS = {**TEXT, "labels": KINDS}
BOTH = {**TEXT, "decoder_input_ids": WORDS[:, :7]}
PAIR = {**BOTH, "labels": WORDS[:, 1:8]}
PICTURE = {"pixel_values": IMAGES}
SHOWN = {**PICTURE, "labels": KINDS[:4]}

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DEEP = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
SMALL = {**DEEP, "vocab_size": 64, "max_position_embeddings": 32, **SPECIAL}
GROUPED = {**SMALL, "num_key_value_heads": 1}
GPT = {"vocab_size": 64, "n_positions": 32, "n_embd": 16, "n_layer": 3, "n_head": 2, **SPECIAL}
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
    "decoder_start_token_id": 0,
    **SPECIAL,
}
T5 = {
    "vocab_size": 64,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
# Their experts are captured only as they run where they are followed, and other attention rounds otherwise then.
CHOSEN = {**GROUPED, "attn_implementation": "eager"}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
RELATIVE = {"pos_att_type": ["c2p", "p2c"], "relative_attention": True}

Case = tuple[str, dict[str, Any], Batch]
"""Class of a configuration, its options, and samples; where they have labels, the loss is the model's own."""

FAMILIES: dict[str, dict[str, Case]] = {
    "Decoders": {
        "GPT2LMHeadModel": ("GPT2Config", GPT, NEXT),
        "GPTJForCausalLM": ("GPTJConfig", {**GPT, "rotary_dim": 4}, NEXT),
        "GPTNeoXForCausalLM": ("GPTNeoXConfig", SMALL, NEXT),
        "LlamaForCausalLM": ("LlamaConfig", GROUPED, NEXT),
        "MistralForCausalLM": ("MistralConfig", {**GROUPED, "sliding_window": 4}, NEXT),
        "Qwen2ForCausalLM": ("Qwen2Config", GROUPED, NEXT),
        "Qwen3ForCausalLM": ("Qwen3Config", {**GROUPED, "head_dim": 8}, NEXT),
        "GemmaForCausalLM": ("GemmaConfig", {**GROUPED, "head_dim": 8}, NEXT),
        "Gemma3ForCausalLM": ("Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 4}, NEXT),
        "PhiForCausalLM": ("PhiConfig", SMALL, NEXT),
        "Phi3ForCausalLM": ("Phi3Config", SMALL, NEXT),
        "OPTForCausalLM": ("OPTConfig", {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 16}, NEXT),
        "FalconForCausalLM": ("FalconConfig", SMALL, NEXT),
        "MptForCausalLM": (
            "MptConfig",
            {"vocab_size": 64, "d_model": 16, "n_layers": 3, "n_heads": 2, "max_seq_len": 32},
            NEXT,
        ),
        "BloomForCausalLM": ("BloomConfig", {"vocab_size": 64, "hidden_size": 16, "n_layer": 3, "n_head": 2}, NEXT),
        "StableLmForCausalLM": ("StableLmConfig", {**SMALL, "num_key_value_heads": 2}, NEXT),
        "Starcoder2ForCausalLM": ("Starcoder2Config", GROUPED, NEXT),
        "OlmoForCausalLM": ("OlmoConfig", GROUPED, NEXT),
        "CohereForCausalLM": ("CohereConfig", GROUPED, NEXT),
        "GraniteForCausalLM": ("GraniteConfig", GROUPED, NEXT),
    },
    "Mixtures of experts": {
        "MixtralForCausalLM": ("MixtralConfig", {**CHOSEN, "num_local_experts": 2, "num_experts_per_tok": 1}, NEXT),
        "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", {**CHOSEN, **EXPERTS, "shared_expert_intermediate_size": 16}, NEXT),
    },
    "State spaces": {
        "MambaForCausalLM": ("MambaConfig", {**SMALL, "state_size": 4}, {"input_ids": WORDS, "labels": WORDS}),
    },
    "Encoders": {
        "BertForMaskedLM": ("BertConfig", SMALL, NEXT),
        "BertForSequenceClassification": ("BertConfig", SMALL, CLASS),
        "RobertaForSequenceClassification": ("RobertaConfig", SMALL, CLASS),
        "XLMRobertaForTokenClassification": ("XLMRobertaConfig", SMALL, TEXT),
        "DistilBertForSequenceClassification": (
            "DistilBertConfig",
            {"vocab_size": 64, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32},
            CLASS,
        ),
        "AlbertForSequenceClassification": (
            "AlbertConfig",
            {**SMALL, "embedding_size": 16, "num_hidden_groups": 3},
            CLASS,
        ),
        "ElectraForSequenceClassification": ("ElectraConfig", {**SMALL, "embedding_size": 16}, CLASS),
        "DebertaForSequenceClassification": ("DebertaConfig", {**SMALL, **RELATIVE}, TEXT),
        "DebertaForSequenceClassification with its own loss": ("DebertaConfig", {**SMALL, **RELATIVE}, CLASS),
        "ModernBertForSequenceClassification": ("ModernBertConfig", SMALL, CLASS),
        "MPNetForSequenceClassification": ("MPNetConfig", SMALL, CLASS),
        "FNetForSequenceClassification": ("FNetConfig", SMALL, {"input_ids": WORDS, "labels": KINDS}),
        "T5EncoderModel": ("T5Config", {**T5, "num_layers": 3}, TEXT),
    },
    "Encoder-decoders": {
        "T5ForConditionalGeneration": ("T5Config", T5, PAIR),
        "BartModel": ("BartConfig", PAIRED, BOTH),
        "BartForConditionalGeneration": ("BartConfig", PAIRED, PAIR),
        "MarianMTModel": ("MarianConfig", PAIRED, PAIR),
    },
    "Vision": {
        "ViTForImageClassification": ("ViTConfig", SIGHT, SHOWN),
        "DeiTForImageClassification": ("DeiTConfig", SIGHT, SHOWN),
        "BeitForImageClassification": ("BeitConfig", SIGHT, SHOWN),
        "Dinov2ForImageClassification": ("Dinov2Config", {**SIGHT, "mlp_ratio": 2}, SHOWN),
        "SwinForImageClassification": (
            "SwinConfig",
            {
                "image_size": 32,
                "patch_size": 2,
                "embed_dim": 8,
                "depths": [1, 2],
                "num_heads": [2, 2],
                "window_size": 4,
            },
            SHOWN,
        ),
        "ConvNextForImageClassification": (
            "ConvNextConfig",
            {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "image_size": 32},
            SHOWN,
        ),
        "ResNetForImageClassification": (
            "ResNetConfig",
            {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
            SHOWN,
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
    },
    "Vision and text": {
        "CLIPModel": (
            "CLIPConfig",
            {"text_config": SMALL, "vision_config": {**SIGHT, "num_hidden_layers": 2}, "projection_dim": 8},
            {"input_ids": WORDS[:4], "attention_mask": MASK[:4], **PICTURE},
        ),
    },
    "Sound": {
        "Wav2Vec2ForSequenceClassification": ("Wav2Vec2Config", HEARD, {"input_values": SOUND, "labels": KINDS[:4]}),
        "ASTForAudioClassification": (
            "ASTConfig",
            {**DEEP, "patch_size": 4, "max_length": 32, "num_mel_bins": 16, "frequency_stride": 4, "time_stride": 4},
            {"input_values": torch.randn(4, 32, 16, generator=DRAW), "labels": KINDS[:4]},
        ),
        "WhisperForConditionalGeneration": (
            "WhisperConfig",
            {**PAIRED, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16},
            {
                "input_features": SOUND[:, :256].reshape(4, 8, 32),
                "decoder_input_ids": WORDS[:4, :7],
                "labels": WORDS[:4, 1:8],
            },
        ),
    },
}

CASES = {name: case for family in FAMILIES.values() for name, case in family.items()}


def settings(name: str, *, dropout: bool) -> Any:
    """Return the configuration of a model.

    Args:
        name: of its class, with what else tells it from others.
        dropout: whether it has that of its defaults, or none.
    """
    kind, options, _ = CASES[name]
    config = getattr(transformers, kind)(**options)
    for part in [config, *(getattr(config, side, None) for side in ("text_config", "vision_config"))]:
        for option, value in vars(part).items() if part is not None and not dropout else ():
            if _drops(option, value):
                setattr(part, option, 0.0)
    return config


def _drops(option: str, value: object) -> bool:
    return "drop" in option and isinstance(value, float) and value > 0


def drops(name: str) -> bool:
    """Return whether a model has dropout by default."""
    return any(_drops(option, value) for option, value in vars(settings(name, dropout=True)).items())


def made(name: str, *, dropout: bool) -> nn.Module:
    """Return a model with drawn weights, the same every time.

    Args:
        name: of its class, with what else tells it from others.
        dropout: whether it has that of its defaults, or none.
    """
    with drawing(torch.device("cpu"), 0, "architecture"):
        model: nn.Module = getattr(transformers, name.partition(" ")[0])(settings(name, dropout=dropout))
    return model.train()
