"""The matrix products of a computation, each counted by hand from its operands' shapes.

Within `Products()` every linear layer, convolution and attention that PyTorch's public functions are called for adds
its operations: two per multiply-add, and in an attention only the (query, key) pairs that its mask lets through. Unlike
torch.utils.flop_counter, whose idea of a fused attention changes with torch's version and the device.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Products(TorchFunctionMode):
    """Products spelled `@` (rotary embeddings) and those of the branch kernel `grouped` are not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.by_kind: Counter[str] = Counter()

    @property
    def operations(self) -> int:
        """So far."""
        return self.by_kind.total()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (functional.linear, functional.conv3d):
            kind = "linear" if func is functional.linear else "convolution"
            # (in) or (in, depth, height, width) of the weight make each element of the output
            self.by_kind[kind] += 2 * out.numel() * math.prod(args[1].shape[1:])
        elif func is functional.scaled_dot_product_attention:
            self.by_kind["attention"] += of_attention(*args[:3], **(kwargs or {}))
        return out


def of_attention(
    query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False, **_: Any
) -> int:
    """Scores and mixtures, (…, Q, width) by (…, K, width), of the pairs that are seen."""
    assert query.shape[-1] == value.shape[-1]
    pairs = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool)
    if attn_mask is not None:
        pairs = attn_mask if attn_mask.dtype == torch.bool else attn_mask > -math.inf
    elif is_causal:
        pairs = pairs.tril()
    seen = int(pairs.expand(*query.shape[:-1], key.shape[-2]).sum())
    return 2 * 2 * seen * query.shape[-1]
