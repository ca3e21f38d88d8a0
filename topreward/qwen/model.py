"""The passes through the model: see, prefill, branch, read; and the plain forward they are held to.

In go layouts and patches; out come log-probabilities. The decoder layers are transformers' own, so norms,
rotary embedding, DeepStack, experts, quantised weights and adapters are whatever the library does; only the
order of work and the attention of the branch pass are ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from topreward.errors import ModelError, PromptError
from topreward.qwen.attention import BRANCH_ATTENTION, BranchPlan, Kernel, attention_set_to
from topreward.qwen.delta import States, branch_plan, branch_points, mixing, rule_name, trunk_plan
from topreward.qwen.growing import GROWING_ATTENTION, GrowingTrunk
from topreward.qwen.layout import VIDEO_PAD, VISION_END, VISION_START, Branch, Passes, Tokens, VisionTokens
from topreward.qwen.loading import BEFORE_5, Checkpoint
from topreward.qwen.tower import at_once
from topreward.qwen.transfer import upload

# Patches per call of the vision tower: blocks are independent, so more of them at once only costs memory.
VISION_CHUNK = 32_768


@dataclass(frozen=True, eq=False)
class Features:
    """What the vision tower saw, one row per visual token, in the order of the blocks."""

    embeds: Tensor
    """(V, hidden)"""
    deepstack: list[Tensor]
    """(V, hidden) for each of the first decoder layers."""

    def __getitem__(self, rows: slice) -> Features:
        return Features(self.embeds[rows], [d[rows] for d in self.deepstack])

    @staticmethod
    def join(parts: list[Features]) -> Features:
        """One after the other; a single part is passed through."""
        if len(parts) == 1:
            return parts[0]
        levels = zip(*(p.deepstack for p in parts), strict=True)
        return Features(torch.cat([p.embeds for p in parts]), [torch.cat(level) for level in levels])


@dataclass(frozen=True, eq=False)
class Trunk:
    """The prefilled trunk: keys and values of every layer, never copied."""

    layers: dict[int, tuple[Tensor, Tensor]]
    """Per layer of full attention (E, KV heads, tokens, head_dim), a row for each video."""
    length: int
    """Tokens of a row, padding included."""
    states: States = field(default_factory=dict)
    """Per linear layer (Qwen3.5, 3.6), its state where branches leave."""

    def at_its_end(self) -> Trunk:
        """Without the states that only branches need: what it takes to go on."""
        end = ("trunk", 0, self.length)
        last = {layer: {end: points[end]} for layer, points in self.states.items() if end in points}
        return Trunk(self.layers, self.length, last)


class QwenVL:
    """A loaded Qwen3-VL, or Qwen3.5 or 3.6, and the passes of one-pass scoring."""

    def __init__(self, checkpoint: Checkpoint, *, kernel: Kernel | None = None) -> None:
        self.model: Any = checkpoint.model
        self.tokenizer = checkpoint.tokenizer
        self.provenance = dict(checkpoint.provenance)
        self.closes_thinking = checkpoint.closes_thinking
        """Whether its chat template opens a thought, and has an empty one that it can be asked behind."""
        self.core = self.model.model
        self.text = self.core.language_model
        self.visual = self.core.visual
        attentions = [layer.self_attn for layer in self.text.layers if hasattr(layer, "self_attn")]
        self.hybrid = len(attentions) < len(self.text.layers)
        """Whether some layers are linear: they hold a state, of which a mask shows no part."""
        if any(attention.config is not self.text.config for attention in attentions):
            raise ModelError("the decoder layers do not share their model's config; the branch kernel cannot be set")
        if any(block.attn.config is not self.visual.config for block in self.visual.blocks):
            raise ModelError("the vision blocks do not share their tower's config; the block kernel cannot be set")
        self.vision_tokens = VisionTokens(*(self._id(t) for t in (VISION_START, VISION_END, VIDEO_PAD)))
        if self.vision_tokens.pad != self.model.config.video_token_id:
            raise ModelError(
                f"the tokenizer has {VIDEO_PAD} at {self.vision_tokens.pad}, "
                f"the config at {self.model.config.video_token_id}"
            )
        self.special_tokens = sorted(t.content for t in self.tokenizer.get_added_tokens_decoder().values())
        # Earlier versions call it past_key_values. The class is asked: hooks may hide what an instance takes.
        renamed = "cache" in inspect.signature(type(self.text).forward).parameters
        self.cache_keyword = "cache" if renamed else "past_key_values"
        self.kernel: Kernel = kernel or ("dense" if self.device.type == "cuda" else "grouped")

    @property
    def device(self) -> torch.device:
        return _device_of(self.text.embed_tokens)

    @property
    def sees_at_once(self) -> bool:
        """Whether the vision tower takes all blocks of a video as one batch."""
        return bool(self.visual.config._attn_implementation == "sdpa")

    @property
    def mask_copies(self) -> int:
        """How many query heads of the branch pass have a mask of their own: those that share a KV head, if folded."""
        config = self.text.config
        return config.num_attention_heads // config.num_key_value_heads if self.kernel == "folded" else 1

    @property
    def kernels(self) -> dict[str, str]:
        """Which attention each pass runs."""
        kernels = {
            "vision": "topreward blocks" if self.sees_at_once else str(self.visual.config._attn_implementation),
            "trunk": str(self.text.config._attn_implementation),
            "branch": f"topreward {self.kernel}",
        }
        return kernels | {"delta rule": rule_name(self.device)} if self.hybrid else kernels

    @property
    def stock_kernels(self) -> dict[str, str]:
        """Which attention a plain forward runs."""
        configs = {"vision": self.visual.config, "text": self.text.config}
        return {name: str(config._attn_implementation) for name, config in configs.items()}

    def refuse_to_write(self, what: str) -> None:
        """Raise ModelError where answers cannot be written token by token: a hybrid's steps have no states here."""
        if self.hybrid:
            raise ModelError(
                f"{what} cannot be written by {self.provenance.get('model', 'this model')}: decoding token by token "
                "is not there for the linear layers of Qwen3.5 and 3.6; take a Qwen3-VL checkpoint for it"
            )

    def encode(self, text: str) -> list[int]:
        """Text → token ids; special tokens that the text spells are read as such."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def answer_id(self, answer: str) -> int:
        """The one token of an answer. Raises PromptError where it has none of its own."""
        ids = self.encode(answer)
        if len(ids) != 1:
            pieces = [self.tokenizer.id_to_token(i) for i in ids]
            raise PromptError(f"the answer {answer!r} is {len(ids)} tokens {pieces}, want one")
        return ids[0]

    # -- the passes ------------------------------------------------------------------------------------

    def see(self, patches: Tensor, grid: tuple[int, int]) -> Features:
        """Run the vision tower. `patches`: (blocks · 4hw, 1536); `grid`: visual tokens per block (h, w)."""
        rows, columns = 2 * grid[0], 2 * grid[1]
        step = max(1, VISION_CHUNK // (rows * columns)) * rows * columns
        return Features.join([self._see(patches[i : i + step], rows, columns) for i in range(0, len(patches), step)])

    def _see(self, patches: Tensor, rows: int, columns: int) -> Features:
        device = _device_of(self.visual.patch_embed.proj)
        # transformers 4.57 reads the sizes on the host, one after the other; 5.x computes with them on the device.
        on_host = BEFORE_5 and self.sees_at_once
        sizes = np.array([[len(patches) // (rows * columns), rows, columns]])
        grid_thw = upload(sizes, torch.device("cpu") if on_host else device)
        # Whoever chose another kernel than sdpa gets the stock tower with that kernel.
        with at_once(self.visual, rows * columns) if self.sees_at_once else nullcontext():
            out = self.visual(patches.to(device, self.visual.dtype), grid_thw=grid_thw)
        # transformers 4.57 returns a pair, 5.x an object; Qwen3.5 has no DeepStack.
        embeds, deepstack = out if isinstance(out, tuple) else (out.pooler_output, _deepstack_of(out))
        return Features(embeds, list(deepstack))

    def ask(
        self,
        layout: Passes,
        trunk_features: Features,
        odd_features: Features,
        *,
        max_tokens: int | None = None,
        points: int | None = None,
    ) -> Tensor:
        """All passes: `prefill`, then `branch`. Returns (D, I, hidden).

        `points`: most branch points of a single video whose states are in memory at once, where the model keeps
        any; those of more prefixes take turns, and the trunk is prefilled in as many parts.
        """
        if not self.hybrid:
            return self.branch(layout, self.prefill(layout, trunk_features), odd_features, max_tokens=max_tokens)
        out, trunk = [], Trunk({}, 0)
        for first, last in _sharing(layout.branches, points):
            branches = layout.branches[first:last]
            trunk = trunk.at_its_end()  # by that name: what is left behind must be free before more is taken
            trunk = self._grown(layout, trunk_features, trunk, branches)
            out.append(self.branch(layout, trunk, odd_features, max_tokens=max_tokens, span=(first, last)))
        return torch.cat(out)

    def prefill(self, layout: Passes, features: Features) -> Trunk:
        """One forward over the trunk, or over the trunks of several packed videos.

        `features` holds the trunks' blocks, one video after the other.
        """
        if not len(layout.trunk):
            return Trunk({}, 0)
        if self.hybrid:
            return self._grown(layout, features, Trunk({}, 0), layout.branches)
        cache = DynamicCache()
