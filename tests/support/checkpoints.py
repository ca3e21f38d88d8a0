"""Small checkpoints of the real architecture, made on the spot.

Weights come from each parameter's name, so that anyone can rebuild them: the recipe under which the original
implementation's outputs in goldens/official.json were made.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from places import GOLDENS

VISION = {"image_token_id": 270, "video_token_id": 271, "vision_start_token_id": 268, "vision_end_token_id": 269}


def tiny_config(kind: str = "dense", **text_changes: Any) -> Any:
    """The parity checkpoint's config, or the same with four experts (`kind="moe"`)."""
    text: dict[str, Any] = {
        "vocab_size": 272,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "max_position_embeddings": 262144,
        "bos_token_id": 265,
        "eos_token_id": 267,
        "pad_token_id": 265,
        **_rope(),
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
        "deepstack_visual_indexes": [1, 2, 3],
    }
    cls = transformers.Qwen3VLConfig
    if kind == "moe":
        cls = transformers.Qwen3VLMoeConfig
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "decoder_sparse_step": 1}
    text |= text_changes
    return cls(text_config=text, vision_config=vision, tie_word_embeddings=text["tie_word_embeddings"], **VISION)


def _rope() -> dict[str, Any]:
    sections = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    if int(transformers.__version__.split(".")[0]) < 5:
        return {"rope_theta": 5_000_000.0, "rope_scaling": sections}
    return {"rope_parameters": {**sections, "rope_theta": 5_000_000.0}}


def fill(model: torch.nn.Module) -> None:
    """Draw every parameter from its own name."""
    for name, parameter in model.named_parameters():
        z = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(tuple(parameter.shape))
        if parameter.ndim == 1:
            z = 1 + 0.1 * z if name.endswith("weight") else 0.05 * z
        elif not (parameter.ndim == 2 and "embed" in name):
            z = 2 * z / math.sqrt(np.prod(parameter.shape[1:]))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(z.astype(np.float32)))


def make_checkpoint(folder: Path, kind: str = "dense", **text_changes: Any) -> Path:
    """Save a tiny checkpoint as the hub lays it out, in the installed transformers' form of the files."""
    config = tiny_config(kind, **text_changes)
    cls = getattr(
        transformers, "Qwen3VLMoeForConditionalGeneration" if kind == "moe" else "Qwen3VLForConditionalGeneration"
    )
    model = cls(config)
    fill(model)
    model.save_pretrained(folder)
    add_tokenizer(folder)
    return folder


def add_tokenizer(folder: Path) -> None:
    """The small tokenizer and the side files of a hub checkpoint."""
    shutil.copy(GOLDENS / "tokenizer.json", folder / "tokenizer.json")
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 262144,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"],
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
