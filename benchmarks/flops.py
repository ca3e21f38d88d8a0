"""How many floating-point operations a curve takes at least, and how many a device does in a second.

In go a config and a layout; out come counts. Two operations per multiply-add; norms, softmax and rotary embedding
are left out.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import torch

from common import timed
from topreward.qwen.layout import Layout
from topreward.qwen.pixels import PATCH_WIDTH


@dataclass(frozen=True)
class Flops:
    """Of one scoring call."""

    vision: float
    trunk: float
    branches: float
    """The head at the scored places included."""

    @property
    def total(self) -> float:
        return self.vision + self.trunk + self.branches

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.vision + other.vision, self.trunk + other.trunk, self.branches + other.branches)


def of_layouts(config: Any, layouts: list[Layout]) -> Flops:
    """Of several calls, one after the other."""
    return sum((of_layout(config, layout) for layout in layouts), Flops(0.0, 0.0, 0.0))


def of_layout(config: Any, layout: Layout) -> Flops:
    """Of seeing, prefilling and scoring one layout, each block seen once."""
    text, vision = config.text_config, config.vision_config
    blocks = layout.trunk_blocks + len(layout.odd_counts)
    length = len(layout.trunk)
    own = sum(len(b) * b.trunk_length + int(b.mask().sum()) for b in layout.branches)
    head = 2.0 * layout.scored.size * text.vocab_size * text.hidden_size
    return Flops(
        vision=of_vision(vision, blocks, 4 * layout.grid[0] * layout.grid[1]),
        trunk=of_decoder(text, length, length * (length + 1) // 2),
        branches=of_decoder(text, len(layout.branch), own) + head,
    )


def of_vision(vision: Any, blocks: int, patches: int) -> float:
    """Of the tower on blocks of so many patches, its mergers included."""
    hidden, out = vision.hidden_size, vision.out_hidden_size
    per_patch = vision.depth * (8.0 * hidden**2 + 4.0 * hidden * vision.intermediate_size + 4.0 * hidden * patches)
    mergers = 1 + len(vision.deepstack_visual_indexes)
    per_token = mergers * 2.0 * (4 * hidden) * (4 * hidden + out)
    return float(blocks * patches * (2.0 * PATCH_WIDTH * hidden + per_patch + per_token / 4))


def of_decoder(text: Any, tokens: int, pairs: int) -> float:
    """Of all layers on so many tokens, with so many (query, key) pairs."""
    heads, kv_heads, width, hidden = (
        text.num_attention_heads,
        text.num_key_value_heads,
        text.head_dim,
        text.hidden_size,
    )
    mlp = text.intermediate_size
    router = 0
    if getattr(text, "num_experts", 0):
        mlp, router = text.num_experts_per_tok * text.moe_intermediate_size, text.num_experts
    weights = hidden * width * (2 * heads + 2 * kv_heads) + 3 * hidden * mlp + hidden * router
    return float(text.num_hidden_layers * (2.0 * weights * tokens + 4.0 * heads * width * pairs))


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large square matrix product: the median of several, after warm-up."""
    side = 8192 if device != "cpu" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    repeats = 10
    seconds = statistics.median(timed(lambda: [a @ b for _ in range(repeats)]) / repeats for _ in range(7))
    return 2.0 * side**3 / seconds
