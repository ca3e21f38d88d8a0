"""The dimensions of the released checkpoints, and random weights that make a spread of answers.

In goes a name, out comes a QwenVL whose weights were drawn on the device: nothing is downloaded. Knows no clock.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from common import random_model
from topreward.qwen.attention import Kernel
from topreward.qwen.model import QwenVL

Sizes = dict[str, Any]

SMALLER_VISION: Sizes = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "deepstack_visual_indexes": [5, 11, 17],
}
LARGER_VISION: Sizes = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "deepstack_visual_indexes": [8, 16, 24],
}


def _text(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, **more: Any) -> Sizes:
    return {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        **more,
    }


EXPERTS = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "decoder_sparse_step": 1}
ARCHITECTURES: dict[str, tuple[Sizes, Sizes]] = {
    "qwen3-vl-2b": (_text(2048, 6144, 28, 16, 8, tie_word_embeddings=True), SMALLER_VISION),
    "qwen3-vl-4b": (_text(2560, 9728, 36, 32, 8, tie_word_embeddings=True), SMALLER_VISION),
    "qwen3-vl-8b": (_text(4096, 12288, 36, 32, 8), LARGER_VISION),
    "qwen3-vl-32b": (_text(5120, 25600, 64, 64, 8), LARGER_VISION),
    "qwen3-vl-30b-a3b": (_text(2048, 6144, 48, 32, 4, **EXPERTS), LARGER_VISION),
    # The same kind at a size that a laptop runs.
    "small": (
        _text(256, 768, 4, 4, 2, head_dim=64),
        {
            "depth": 3,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_heads": 4,
            "deepstack_visual_indexes": [0, 1, 2],
        },
    ),
}


def make(name: str, *, device: str, dtype: torch.dtype, kernel: Kernel | None = None) -> QwenVL:
    """An architecture with weights drawn from seed 0. Repeated on one device, it is the same model."""
    text, vision = ARCHITECTURES[name]
    model = random_model(text, vision, device=device, dtype=dtype, kernel=kernel)
    spread(model.model)
    return model


def spread(model: nn.Module) -> None:
    """Draw weights anew, of a size that keeps activations alive through all layers.

    The library's own start (deviation .02) gives nearly the same answer for everything; differences between ways
    of computing it would not show.
    """
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        fan_in = parameter.shape[1] if parameter.ndim == 3 else math.prod(parameter.shape[1:])
        gain = 2.0 if "lm_head" in name else 1.0
        parameter.normal_(std=1.0 if "embed_tokens" in name else gain / math.sqrt(fan_in))
