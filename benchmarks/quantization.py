"""A model's decoder in 8 or 4 bits, as loading it with `quantization=` makes it, and what that costs and moves.

In goes a QwenVL, out come figures; the model stays quantized.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import bitsandbytes as bnb
import numpy as np
import torch
from torch import Tensor, nn

from common import First, first, interleaved, median
from topreward.config import Protocol
from topreward.qwen.loading import _quantization  # the very settings that loading passes on
from topreward.qwen.model import QwenVL
from topreward.types import Clip
from ways import Workload

# It says in every call of every layer that int8 computes in float16.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def quantize(model: QwenVL, kind: str) -> int:
    """Turn the decoder's linear layers into 8- or 4-bit ones in place. Vision tower and head stay.

    Returns how many layers were turned. Raises ModelError without bitsandbytes.
    """
    settings = _quantization(kind, model.text.dtype)
    layers = [
        (owner, name)
        for owner in model.text.layers.modules()
        for name, child in owner.named_children()
        if type(child) is nn.Linear
    ]
    for owner, name in layers:
        setattr(owner, name, _quantized(getattr(owner, name), kind, settings))
    return len(layers)


def _quantized(old: nn.Linear, kind: str, settings: Any) -> nn.Module:
    """One layer, step by step as transformers does it: an empty layer of bitsandbytes, then its weight."""
    sizes = old.in_features, old.out_features, old.bias is not None
    weight = old.weight.data
    with torch.device("meta"):  # no weights drawn only to be thrown away
        if kind == "int8":
            new = bnb.nn.Linear8bitLt(
                *sizes, has_fp16_weights=settings.llm_int8_has_fp16_weight, threshold=settings.llm_int8_threshold
            )
        else:
            new = bnb.nn.Linear4bit(
                *sizes,
                settings.bnb_4bit_compute_dtype,
                compress_statistics=settings.bnb_4bit_use_double_quant,
                quant_type=settings.bnb_4bit_quant_type,
                quant_storage=settings.bnb_4bit_quant_storage,
            )
    options = {key: value for key, value in vars(new.weight).items() if key not in ("SCB", "CB")}
    source = weight.cpu() if kind == "int8" else weight  # int8 is made on the way from the host to the device
    new.weight = type(new.weight)(source, requires_grad=False, **options).to(weight.device)
    if old.bias is not None:
        new.bias = nn.Parameter(old.bias.data, requires_grad=False)
    turned: nn.Module = new.eval().requires_grad_(False)
    return turned


def weight_bytes(model: QwenVL) -> int:
    """Of all weights, the scales of quantized ones included."""
    seen = {t.untyped_storage().data_ptr(): t.numel() * t.element_size() for t in _weights(model.model)}
    return sum(seen.values())


def _weights(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        weight = getattr(module, "weight", None)
        state = getattr(weight, "quant_state", None)
        if state is not None:
            yield from (t for t in state.as_dict(packed=False).values() if isinstance(t, Tensor))
        # int8: one scale per row, on the weight until the first call, then in the layer's state
        for holder in (weight, getattr(module, "state", None)):
            if isinstance(scale := getattr(holder, "SCB", None), Tensor):
                yield scale


def measure(
    model: QwenVL,
    kind: str,
    clips: list[Clip],
    task: str,
    protocol: Protocol,
    device: str,
    **repeats: Any,
) -> dict[str, Any]:
    """The same weights before and after: time, memory, and how far the values move."""
    works = [Workload(model, clip, [task], protocol) for clip in clips]
    before, full = [work.ours() for work in works], _timed(works[0], device, repeats)
    weights = weight_bytes(model)
    layers = quantize(model, kind)
    now = _timed(works[0], device, repeats)
    moved = [float(np.abs(work.ours() - b).max()) for work, b in zip(works, before, strict=True)]
    settings = _quantization(kind, model.text.dtype).to_dict()
    return {
        "kind": kind,
        "settings": settings,
        "layers": layers,
        "weight_bytes": {"before": weights, "after": weight_bytes(model)},
        "seconds": {"before": full["seconds"], "after": now["seconds"]},
        "median": {"before": full["median"], "after": now["median"]},
        "peak_bytes": {"before": full["peak_bytes"], "after": now["peak_bytes"]},
        "largest_difference_per_clip": moved,
        "largest_difference_median": median(moved),
    }


def _timed(work: Workload, device: str, repeats: dict[str, Any]) -> dict[str, Any]:
    ways = {"floor": work.floor, "ours": work.ours}
    firsts: dict[str, First] = {name: first(way, device) for name, way in ways.items()}
    seconds = interleaved(ways, warm=sum(f.seconds for f in firsts.values()), **repeats)
    return {
        "seconds": seconds,
        "median": {name: median(s) for name, s in seconds.items()},
        "peak_bytes": {name: f.peak_bytes for name, f in firsts.items()},
    }
