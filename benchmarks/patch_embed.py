"""The vision tower's patch embedding as the convolution that it is, or as the matrix product that it equals.

A convolution whose stride is its kernel is a matrix product, but some pairs of torch and cuDNN run it in bf16
hundreds of times slower. In goes a model; out come seconds, or the same model with the product in the convolution's
place, for every way alike.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from common import median, timed
from topreward.qwen.model import QwenVL
from topreward.qwen.pixels import PATCH_WIDTH

PATCHES = 8448
"""33 blocks of 256x256: the patches of the 984-frame clip."""
CHOICES = ("never", "auto", "always")
MUCH_SLOWER = 10.0
"""Times that the convolution may take of the product before `auto` takes the product."""


def measure(model: QwenVL, patches: int = PATCHES) -> dict[str, Any]:
    """Median seconds of both on so many patches."""
    embed = model.visual.patch_embed
    weight = embed.proj.weight
    rows = torch.randn(patches, PATCH_WIDTH, device=weight.device, dtype=weight.dtype)
    ways = {"convolution": partial(type(embed).forward, embed, rows), "product": partial(_product, embed, rows)}
    found: dict[str, Any] = {"patches": patches}
    for name, way in ways.items():
        timed(way)
        found[name] = median([timed(way) for _ in range(3)])
    found["convolution_over_product"] = found["convolution"] / found["product"]
    return found


def as_chosen(model: QwenVL, choice: str, measured: dict[str, Any]) -> str:
    """Set it up, and say which it is."""
    slow = measured["convolution_over_product"] > MUCH_SLOWER
    if choice == "always" or (choice == "auto" and slow):
        embed = model.visual.patch_embed
        embed.forward = partial(_product, embed)
        return "product"
    return "convolution"


def _product(embed: Any, patches: Tensor) -> Tensor:
    weight = embed.proj.weight
    return linear(patches.reshape(-1, PATCH_WIDTH).to(weight.dtype), weight.flatten(1), embed.proj.bias)
