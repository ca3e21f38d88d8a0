"""Small checkpoints of Qwen3.5's real classes: gated DeltaNet layers among those of full attention.

Weights come from each parameter's name, as in `checkpoints`. Decay rates are drawn so that some heads remember the
whole video and others a few tokens: with all of one kind, a lost state would hide.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from checkpoints import VISION, add_tokenizer, fill

CLASSES = {"hybrid": "Qwen3_5ForConditionalGeneration", "hybrid moe": "Qwen3_5MoeForConditionalGeneration"}
THERE = hasattr(transformers, CLASSES["hybrid"])
needs_hybrids = pytest.mark.skipif(not THERE, reason="transformers has Qwen3.5 from 5.2 on")


def hybrid_config(kind: str = "hybrid", **text_changes: Any) -> Any:
    """Two linear layers, one of full attention, one linear; the MoE has four experts and a shared one."""
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    text: dict[str, Any] = {
        "vocab_size": 272,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 24,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "max_position_embeddings": 262144,
        "bos_token_id": 265,
        "eos_token_id": 267,
        "pad_token_id": 265,
        "rope_parameters": {**rope, "rope_theta": 10_000_000.0, "partial_rotary_factor": 0.25},
    }
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "num_position_embeddings": 2304,
        "out_hidden_size": 64,
    }
    cls = transformers.Qwen3_5Config
    if kind == "hybrid moe":
        cls = transformers.Qwen3_5MoeConfig
        del text["intermediate_size"]
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
        text |= {"shared_expert_intermediate_size": 32}
    text |= text_changes
    return cls(text_config=text, vision_config=vision, tie_word_embeddings=text["tie_word_embeddings"], **VISION)


def fill_hybrid(model: torch.nn.Module) -> None:
    """As `fill`, but norms that count from 1, and rates of forgetting from almost none to almost all."""
    fill(model)
    for name, parameter in model.named_parameters():
        random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        shape = tuple(parameter.shape)
        if name.endswith("A_log"):
            drawn = random.uniform(-6, 0.5, shape)
        elif name.endswith("dt_bias"):
            drawn = random.standard_normal(shape)
        elif "norm" in name and "visual" not in name and "linear_attn" not in name:
            drawn = 0.1 * random.standard_normal(shape)  # the library adds 1
        else:
            continue
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(drawn.astype(np.float32)))


def make_hybrid(folder: Path, kind: str = "hybrid", **text_changes: Any) -> Path:
    """Save a tiny checkpoint as the hub lays it out."""
    model = getattr(transformers, CLASSES[kind])(hybrid_config(kind, **text_changes))
    fill_hybrid(model)
    model.save_pretrained(folder)
    add_tokenizer(folder)
    return folder
