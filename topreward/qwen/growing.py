"""The attention of a trunk that grows pass by pass, and keeps its own keys and values.

In go the queries, keys and values of a run of trunk tokens and those of the runs before it; out comes what the model's
chosen attention gives. For models whose trunk may have to be prefilled in parts (`topreward.qwen.delta`): the library's
own caches differ from version to version there, and one of them restarts what it should continue.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

GROWING_ATTENTION = "topreward_growing"

KeysValues = tuple[Tensor, Tensor]
"""(E, KV heads, tokens, head_dim) each, a row for each video."""


@dataclass
class GrowingTrunk:
    """The keys and values of the trunk so far, by layer."""

    before: dict[int, KeysValues]
    """Of the runs before this one."""
    attention: str
    """The model's own choice, as transformers names it."""
    layers: dict[int, KeysValues] = field(default_factory=dict)
    """With this run."""
    _masks: dict[Any, Tensor] = field(default_factory=dict)

    def mask(self, query: Tensor, keys: int) -> Tensor | None:
        """What the chosen attention needs to see the past and no future; sdpa and flash know the plain case alone."""
        tokens = query.shape[2]
        eager = self.attention == "eager"
        if "flash" in self.attention or (keys == tokens and not eager):
            return None
        key = (query.device, query.dtype)
        if key not in self._masks:
            seen = torch.ones(tokens, keys, dtype=torch.bool, device=query.device).tril(keys - tokens)
            if eager:  # added to the scores
                seen = torch.zeros_like(seen, dtype=query.dtype).masked_fill_(~seen, float("-inf"))
            self._masks[key] = seen[None, None]
        return self._masks[key]


def growing_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    growing: GrowingTrunk,
    **options: Any,
) -> tuple[Tensor, Any]:
    """The attention function that transformers calls in each full-attention layer of a trunk pass."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if layer in growing.before:
        past_key, past_value = growing.before[layer]
        key, value = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)
    growing.layers[layer] = key, value
    stock = growing.attention
    if stock == "eager":  # transformers registers it nowhere
        attend = sys.modules[type(module).__module__].eager_attention_forward
    else:
        attend = ALL_ATTENTION_FUNCTIONS[stock]
    mixed: tuple[Tensor, Any] = attend(module, query, key, value, growing.mask(query, key.shape[2]), **options)
    return mixed


ALL_ATTENTION_FUNCTIONS.register(GROWING_ATTENTION, growing_attention)
