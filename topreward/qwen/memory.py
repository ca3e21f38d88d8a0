"""How much memory a scoring call takes, asked before it is taken.

In go token counts and the model's dimensions; out comes a number of bytes, and an error where there is less.
The estimate counts what lives at the same time, a little generously; tests hold it above the measured peak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from topreward.errors import MemoryLimitError
from topreward.qwen.delta import RULE_CHUNK
from topreward.qwen.pixels import PATCH_WIDTH

# Part of the free memory that a call may plan with: allocators fragment, libraries keep workspaces.
USABLE = 0.9
# Most elements of a dense branch mask; beyond it the branch pass goes in chunks.
MASK_ELEMENTS = 2**28
# Branch tokens that always go in one pass, and the fewest that a bounded mask may leave.
CHUNK_TOKENS = 8192
MIN_CHUNK = 256


@dataclass(frozen=True)
class Load:
    """The sizes of one scoring call, of one video or of several packed ones."""

    trunk_tokens: int
    """Of all videos, padding included, like the branches'."""
    branch_tokens: int
    visual_tokens: int
    patches_at_once: int
    scored: int
    frame_bytes: int = 0
    """Decoded frames that are in memory at once."""
    videos: int = 1
    mask_copies: int = 1
    """How often the branches' mask stands in memory (`QwenVL.mask_copies`)."""
    points: int = 0
    """Branch points of the trunk, which a hybrid's linear layers keep a state for each."""
    points_at_once: int | None = None
    """Of these, how many are in memory at once; None: all. Fewer take turns, and the trunk is prefilled in parts."""
    stretch: int = 0
    """Most trunk tokens between two of them."""

    @property
    def branch_chunk(self) -> int:
        """Branch tokens per pass: no more activations than the trunk had, and a mask of bounded size."""
        chunk = max(self.trunk_tokens, CHUNK_TOKENS)
        most = MASK_ELEMENTS * self.videos // self.mask_copies
        while chunk > MIN_CHUNK and chunk * (self.trunk_tokens + chunk) > most:
            chunk //= 2
        return chunk


def packed(loads: Sequence[Load], *, patches_at_once: int) -> Load:
    """The sizes of a call that packs several; `patches_at_once`: most that are seen together."""
    if len(loads) == 1:
        return loads[0]
    return Load(
        trunk_tokens=len(loads) * max(load.trunk_tokens for load in loads),
        branch_tokens=len(loads) * max(load.branch_tokens for load in loads),
        visual_tokens=sum(load.visual_tokens for load in loads),
        patches_at_once=max(patches_at_once, max(load.patches_at_once for load in loads)),
        scored=sum(load.scored for load in loads),
        frame_bytes=max(load.frame_bytes for load in loads),
        videos=len(loads),
        mask_copies=loads[0].mask_copies,
        points=sum(load.points for load in loads),
        stretch=len(loads) * max(load.stretch for load in loads),
    )


def estimate_bytes(model: Any, load: Load, *, block_patches: int) -> int:
    """Bytes that a scoring call takes beyond the loaded weights."""
    text, vision = model.config.text_config, model.config.vision_config
    size = torch.finfo(model.dtype).bits // 8
    hidden, heads, width = text.hidden_size, text.num_attention_heads, text.head_dim
    mlp = max(
        getattr(text, "intermediate_size", 0),
        getattr(text, "moe_intermediate_size", 0) * getattr(text, "num_experts_per_tok", 0),
    )

    levels = len(getattr(vision, "deepstack_visual_indexes", []))
    features = load.visual_tokens * hidden * (1 + levels) * size
    cache = cache_bytes(model, load.trunk_tokens)
    per_token = ((6 + levels) * hidden + 3 * heads * width + 3 * mlp) * size  # the levels, spread over all tokens
    linear = LinearLayers.of(model)
    per_token = max(per_token, 6 * hidden * size + linear.token_bytes)
    eager = model.model.language_model.config._attn_implementation == "eager"
    trunk = load.trunk_tokens * per_token
    if eager:  # scores, their fp32 softmax and a mask
        trunk += load.trunk_tokens**2 // load.videos * (heads * (2 * size + 4) + size)
    in_parts = load.points_at_once is not None and load.points_at_once < load.points
    if in_parts and linear.count:  # a mask of what was before: at most for the second half of the trunk
        trunk += load.trunk_tokens**2 // 2 * (1 + size)
    trunk += linear.rule_bytes(load.stretch, load.videos)
    chunk = min(load.branch_tokens, load.branch_chunk)
    keys = load.trunk_tokens + chunk
    mask = chunk * keys // load.videos * (1 + size * load.mask_copies)
    branch = chunk * per_token + mask + 2 * keys * heads * width * size + linear.rule_bytes(chunk, load.scored)
    see = load.patches_at_once * (8 * vision.hidden_size + 2 * vision.intermediate_size) * size
    see += load.patches_at_once * PATCH_WIDTH * 4 * 2 + load.frame_bytes * 2  # patches, made from float pixels
    if model.model.visual.config._attn_implementation == "eager":
        see += block_patches**2 * vision.num_heads * (size + 4)
    logits = load.scored * text.vocab_size * 4 * 2
    # One more than are in use: the last one, which the next part of the trunk goes on from.
    states = (min(load.points, (load.points_at_once or 0) + 1) if in_parts else load.points) * linear.state_bytes
    decode = cache + states + max(trunk, branch, logits)
    # A GPU's allocator uses the tower's memory again for the decoder; a C library keeps some of it.
    return int(features + (max(see, decode) if model.device.type == "cuda" else see + decode))


def cache_bytes(model: Any, tokens: int) -> int:
    """Bytes of the keys and values of that many tokens, all layers."""
    text = model.config.text_config
    per_layer = 2 * text.num_key_value_heads * text.head_dim * (torch.finfo(model.dtype).bits // 8)
    return int(tokens * (text.num_hidden_layers - LinearLayers.of(model).count) * per_layer)


@dataclass(frozen=True)
class LinearLayers:
    """What a hybrid's linear layers take (`topreward.qwen.delta`); all zero for a model without any."""

    count: int
    state_bytes: int
    """Of one branch point, all layers: the rule's state in fp32, and the convolution's last inputs."""
    token_bytes: int
    """Of one token in one layer: projections, convolution, gate and norm."""
    row_bytes: int
    """Of one row of a call of the rule: the state that it begins with, and the one that it ends in."""
    padded_bytes: int
    """Of one token inside the rule, which computes in fp32."""

    @classmethod
    def of(cls, model: Any) -> LinearLayers:
        text = model.config.text_config
        count = list(getattr(text, "layer_types", None) or []).count("linear_attention")
        if not count:
            return cls(0, 0, 0, 0, 0)
        size = torch.finfo(model.dtype).bits // 8
        heads, key, value = text.linear_num_value_heads, text.linear_key_head_dim, text.linear_value_head_dim
        channels = 2 * text.linear_num_key_heads * key + heads * value
        memory = heads * key * value * 4
        return cls(
            count,
            count * (memory + (text.linear_conv_kernel_dim - 1) * channels * size),
            (6 * channels + heads * (2 * key + 3 * value)) * size,
            2 * memory,
            heads * (7 * key + 6 * value + 4 * RULE_CHUNK) * 4,
        )

    def rule_bytes(self, tokens: int, rows: int) -> int:
        """Bytes of a call with so many tokens, whose rows are padded to whole chunks."""
        return rows * self.row_bytes + (tokens + rows * RULE_CHUNK) * self.padded_bytes


def fitting_points(needed: Callable[[int], int], points: int, limit: int) -> int:
    """How many branch points can be in memory at once: all, or as many as leave room for the rest; one at least.

    `needed`: points at once → bytes of the call, increasing. `limit`: bytes there are.
    """
    if points < 2 or needed(points) <= limit * USABLE:
        return points
    low, high = 1, points
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= limit * USABLE else (low, middle)
    return low


@dataclass(frozen=True)
class BatchLoad:
    """The sizes of one batch of answers (`topreward.qwen.batch`)."""

    rows: int
    """Prompts."""
    prompt_tokens: int
    """Of the longest prompt, like all that follows."""
    new_tokens: int
    """Most that an answer takes."""
    visual_tokens: int
    """Those of in-context episodes, which stay, count once more."""
    patches_at_once: int
    pixels: int
    """Values of the images that wait to be seen."""


def estimate_batch_bytes(model: Any, load: BatchLoad, *, block_patches: int) -> int:
    """Bytes that a batch of answers takes beyond the loaded weights: its cache, and one prompt being prefilled."""
    one = Load(
        trunk_tokens=load.prompt_tokens,
        branch_tokens=0,
        visual_tokens=load.visual_tokens,
        patches_at_once=load.patches_at_once,
        scored=load.rows,
    )
    prefill = estimate_bytes(model, one, block_patches=block_patches)
    return prefill + load.rows * (cache_bytes(model, load.prompt_tokens + load.new_tokens) + 4 * load.pixels)


def available_bytes(device: torch.device) -> int:
    """Free memory of the device, counting what torch holds but does not use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return int(psutil.virtual_memory().available)


def require(needed: Callable[[int], int], frames: int, limit: int, *, sampling_fps: float, source: str) -> None:
    """Raise MemoryLimitError, naming the longest video that fits, unless `needed(frames)` bytes do.

    `needed`: sampled frames → bytes, increasing. `limit`: bytes there are.
    """
    wanted = needed(frames)
    if wanted <= limit * USABLE:
        return
    low, high = 0, frames
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= limit * USABLE else (low, middle)
    fits = f"the longest that fits is {low} frames ({low / sampling_fps:.0f} s at {sampling_fps:g} frames/s)"
    raise MemoryLimitError(
        f"{source}: {frames} sampled frames need about {wanted / 2**30:.2f} GiB, {limit * USABLE / 2**30:.2f} GiB are "
        f"usable; {fits if low else 'not even one frame fits'}"
    )


def require_batch(needed: Callable[[int], int], rows: int, limit: int, *, what: str) -> None:
    """Raise MemoryLimitError, naming the largest batch that fits, unless `needed(rows)` bytes do.

    `needed`: prompts in the batch → bytes, increasing. `limit`: bytes there are. `what`: the batch, in words.
    """
    wanted = needed(rows)
    if wanted <= limit * USABLE:
        return
    fits = next((n for n in range(rows - 1, 0, -1) if needed(n) <= limit * USABLE), 0)
    raise MemoryLimitError(
        f"{what} need about {wanted / 2**30:.2f} GiB, {limit * USABLE / 2**30:.2f} GiB are usable; "
        f"{f'a batch of {fits} fits' if fits else 'not even one fits'}"
    )
