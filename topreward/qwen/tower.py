"""The stock vision tower, all blocks at once.

All blocks of a video have one size. The stock tower does not count on that: it cuts the sequence and attends
block by block in Python. Within `at_once` the blocks are one batch; every weight, norm and rotary embedding is
the tower's own, and so are the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topreward.qwen.attention import attention_set_to

BLOCK_ATTENTION = "topreward_blocks"


@contextmanager
def at_once(visual: Any, block_length: int) -> Iterator[None]:
    """Within it, the tower takes a sequence of blocks of `block_length` patches each as one batch."""

    def whole(attention: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        patches = args[0] if args else options["hidden_states"]
        # On the host, where the stock attention reads it: on the device, every layer would wait for it.
        uncut = torch.tensor([0, len(patches)], dtype=torch.int32)
        return args, {**options, "cu_seqlens": uncut, "block_length": block_length}

    hooks = [block.attn.register_forward_pre_hook(whole, with_kwargs=True) for block in visual.blocks]
    try:
        with attention_set_to(visual.config, BLOCK_ATTENTION):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def block_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    block_length: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each block of `block_length` patches: (1, heads, P, width) → (1, P, heads, width)."""
    heads, width = query.shape[1], query.shape[3]
    q, k, v = (x[0].view(heads, -1, block_length, width).transpose(0, 1) for x in (query, key, value))
    mixed = scaled_dot_product_attention(q, k, v, scale=scaling)
    return mixed.transpose(1, 2).reshape(1, -1, heads, width), None


ALL_ATTENTION_FUNCTIONS.register(BLOCK_ATTENTION, block_attention)
