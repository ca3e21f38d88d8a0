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

    def refuse_to_write(self, what: str, *, leave_out: str) -> None:
        """Raise ModelError where answers cannot be written token by token: a hybrid's steps have no states here.

        `leave_out`: what to say to do without.
        """
        if self.hybrid:
            raise ModelError(
                f"{what} cannot be written by {self.provenance.get('model', 'this model')}: decoding token by token "
                "is not there for the linear layers of Qwen3.5 and 3.6; take a Qwen3-VL checkpoint for it, or do "
                f"without ({leave_out})"
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
        self.decode(layout.trunk, features, cache=cache)
        layers = {i: (layer.keys, layer.values) for i, layer in enumerate(cache.layers)}
        return Trunk(layers, layout.trunk.ids.shape[-1])

    def _grown(self, layout: Passes, features: Features, trunk: Trunk, branches: Sequence[Branch]) -> Trunk:
        """The trunk, prefilled further, up to where the last of these branches leaves it; with states for them all."""
        packed = layout.trunk.ids.ndim == 2
        stop = layout.trunk.ids.shape[-1] if packed else max(b.trunk_length for b in branches)
        if stop == trunk.length:
            return trunk
        tokens = layout.trunk[slice(trunk.length, stop)]
        seen = int(layout.trunk.visual[..., : trunk.length].sum())
        plan = trunk_plan(branches, width=stop - trunk.length, past=trunk.length, before=trunk.states)
        growing = GrowingTrunk(trunk.layers, str(self.text.config._attn_implementation))
        with self.attention(GROWING_ATTENTION), mixing(self.text.layers, plan):
            self.decode(
                tokens,
                features[slice(seen, seen + int(tokens.visual.sum()))],
                past=trunk.length,
                growing=growing,
            )
        return Trunk(growing.layers, stop, plan.states)

    def branch(
        self,
        layout: Passes,
        trunk: Trunk,
        features: Features,
        *,
        max_tokens: int | None = None,
        span: tuple[int, int] | None = None,
    ) -> Tensor:
        """One forward over all branches; those of a single video in chunks of at most `max_tokens`, one at least.

        `features` holds the odd prefixes' padded blocks. `span`: only branches [first, last) of a single video.
        Returns (D, I, hidden): the last hidden state of every prefix's every question.
        """
        begin, end = span or (0, len(layout.branches))
        out, seen = [], int(layout.branch.visual[..., : layout.branches[begin].start].sum()) if begin else 0
        chunks = _chunks([len(b) for b in layout.branches[begin:end]], max_tokens or len(layout.branch))
        for first, last in ((begin + i, begin + j) for i, j in chunks):
            branches = layout.branches[first:last]
            start, stop = branches[0].start, max(b.stop for b in branches)
            tokens = layout.branch[start:stop]
            visual = int(tokens.visual.sum())
            plan = BranchPlan(branches, trunk.layers, self.kernel)
            linear = self._linear(branches, trunk, stop - start)
            with self.attention(BRANCH_ATTENTION), linear:
                hidden = self.decode(tokens, features[slice(seen, seen + visual)], branch_plan=plan)
            seen += visual
            out.append(hidden.flatten(0, 1)[upload(layout.scored[first:last] - start, hidden.device)])
        return torch.cat(out)

    def _linear(self, branches: Sequence[Branch], trunk: Trunk, width: int) -> AbstractContextManager[None]:
        """Within it, linear layers start each branch from its part of the trunk."""
        if not self.hybrid:
            return nullcontext()
        return mixing(self.text.layers, branch_plan(branches, trunk.states, width=width))

    def log_probs(self, hidden: Tensor, answers: tuple[int, ...]) -> NDArray[np.float64]:
        """(…, hidden) last hidden states → (…, answers) log-probabilities of the answers' tokens, nats.

        Raises ModelError where one is NaN or infinite.
        """
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = self._logits(flat)
        picked = logits[:, list(answers)] - logits.logsumexp(-1, keepdim=True)
        return self._finite(picked.double().cpu().numpy()).reshape(*hidden.shape[:-1], len(answers))

    def next_tokens(self, hidden: Tensor) -> NDArray[np.int64]:
        """(R, hidden) → (R,) the most probable next tokens. Raises ModelError where a logit of theirs is no number."""
        highest = self._logits(hidden).max(-1)
        self._finite(highest.values.cpu().numpy())
        return highest.indices.cpu().numpy()

    def _finite(self, values: NDArray[Any]) -> NDArray[Any]:
        """What was read out of the model, which has failed where that is no number."""
        if not np.isfinite(values).all():
            raise ModelError(
                f"{self.provenance.get('model')}: its answers are NaN or infinite in {self.provenance.get('dtype')}; "
                "the weights are broken, or need another dtype"
            )
        return values

    @property
    def stop_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        return [i for i in map(self.tokenizer.token_to_id, ("<|im_end|>", "<|endoftext|>")) if i is not None]

    def decode_text(self, ids: list[int]) -> str:
        """Token ids → text, special tokens left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _logits(self, hidden: Tensor) -> Tensor:
        """(R, hidden) → (R, vocabulary) float32."""
        head = self.model.lm_head
        hidden = hidden.to(_device_of(head))
        plain = type(head) is torch.nn.Linear and head.weight.device.type != "meta"
        if not plain or head.weight.dtype == torch.float32:
            logits: Tensor = head(hidden.to(head.weight.dtype)).float()
            return logits
        if _multiplies_into_fp32(hidden, head.weight):
            return torch.mm(hidden, head.weight.T, out_dtype=torch.float32)
        # fp32 where it is read: bf16 logits near 16 are 1/8 apart. A slice of the head at a time, because the
        # whole of it in fp32 would be gigabytes.
        rows = hidden.float()
        return torch.cat([rows @ part.float().T for part in torch.split(head.weight, 16_384)], dim=-1)

    def decode(
        self,
        tokens: Tokens,
        features: Features | None,
        *,
        cache: DynamicCache | None = None,
        past: int = 0,
        **options: Any,
    ) -> Tensor:
        """Token and visual embeddings through the decoder, after `past` tokens; a `cache` gains these.

        `options` reach the attention function. Returns (E, L, hidden).
        """
        device = self.device
        shape = -1, tokens.ids.shape[-1]
        embeds = self.text.embed_tokens(upload(tokens.ids, device).reshape(shape))
        if features is not None and tokens.visual.any():
            places = upload(np.flatnonzero(tokens.visual), device)
            embeds.flatten(0, 1).index_copy_(0, places, features.embeds.to(device, embeds.dtype))
            if features.deepstack:
                options |= self._deepstack(features, places, embeds)
        # Row 0 is the plain index that masks are made from, rows 1..3 are M-RoPE.
        rope = tokens.positions.reshape(3, *shape)
        index = np.broadcast_to(past + np.arange(shape[1]), (1, *rope.shape[1:]))
        positions = upload(np.concatenate([index, rope]), device)
        options |= {self.cache_keyword: cache, "use_cache": cache is not None}
        hidden: Tensor = self.text(inputs_embeds=embeds, position_ids=positions, **options).last_hidden_state
        return hidden

    @staticmethod
    def _deepstack(features: Features, places: Tensor, embeds: Tensor) -> dict[str, Any]:
        """What the first decoder layers are to add at `places` of the (E, L, hidden) tokens.

        The library takes what `visual_pos_masks` points at, adds the features and puts it back. A mask of tokens
        would make the host wait for the device in each of these layers, to learn how many they are; so it is
        given the numbers of all rows instead, and features that are zero at every other token.
        """
        rows = torch.arange(len(embeds), device=embeds.device)
        spread = []
        for level in features.deepstack:
            whole = embeds.new_zeros(embeds.shape)
            whole.flatten(0, 1).index_copy_(0, places, level.to(whole))
            spread.append(whole)
        return {"visual_pos_masks": rows, "deepstack_visual_embeds": spread}

    def attention(self, name: str) -> AbstractContextManager[None]:
        """Within it, the decoder layers run the attention registered under that name."""
        return attention_set_to(self.text.config, name)

    # -- the slow twin ---------------------------------------------------------------------------------

    def plain_forward(self, prompt: str, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """The model's own forward over one whole prompt: ids from one tokenizer call, positions by the model.

        Returns (vocabulary,) float32 logits after the last token. Nothing of the passes above is used. Raises
        ModelError where the highest is NaN or infinite.
        """
        inputs = self._whole_prompt(prompt, patches, grid)
        logits: Tensor = self.model(**inputs, logits_to_keep=1, use_cache=False).logits[0, -1].float()
        self._finite(logits.max().cpu().numpy())
        return logits

    def plain_generate(self, prompt: str, patches: Tensor, grid: tuple[int, int], *, max_new_tokens: int) -> str:
        """transformers' own greedy `generate` on one whole prompt."""
        inputs = self._whole_prompt(prompt, patches, grid)
        start = inputs["input_ids"].shape[1]
        out = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.stop_tokens,
            pad_token_id=self.stop_tokens[0],
        )
        return self.decode_text(out[0, start:].tolist())

    def _whole_prompt(self, prompt: str, patches: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
        ids = torch.tensor([self.encode(prompt)], device=self.device)
        blocks = len(patches) // (4 * grid[0] * grid[1])
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values_videos": patches.to(self.device, self.visual.dtype),
            "video_grid_thw": torch.tensor([[blocks, 2 * grid[0], 2 * grid[1]]], device=self.device),
        }
        if "mm_token_type_ids" in inspect.signature(self.core.forward).parameters:
            # Required by transformers 5, unknown to 4.57.
            inputs["mm_token_type_ids"] = (ids == self.vision_tokens.pad).int() * 2
        return inputs

    def _id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ModelError(f"the tokenizer has no token {token}")
        return int(found)


def _device_of(module: Any) -> torch.device:
    """Where a module computes. Weights that accelerate has offloaded are on `meta` between calls."""
    device: torch.device = module.weight.device
    return torch.device(module._hf_hook.execution_device) if device.type == "meta" else device


def _deepstack_of(seen: Any) -> list[Tensor]:
    """What the tower hands to the first decoder layers, where it does."""
    return list(getattr(seen, "deepstack_features", None) or [])


def _multiplies_into_fp32(hidden: Tensor, weight: Tensor) -> bool:
    """Whether this torch has a product of these two whose sums stay in fp32 (from 2.8, on NVIDIA GPUs)."""
    able = weight.device.type == "cuda" and torch.version.hip is None and hasattr(torch.ops.aten.mm, "dtype")
    return able and hidden.dtype == weight.dtype and weight.dtype in (torch.bfloat16, torch.float16)


def _chunks(lengths: list[int], limit: int) -> Iterator[tuple[int, int]]:
    """Consecutive spans of items whose lengths sum to at most `limit`, one item at least."""
    first, total = 0, 0
    for i, length in enumerate(lengths):
        if i > first and total + length > limit:
            yield first, i
            first, total = i, 0
        total += length
    yield first, len(lengths)


def _sharing(branches: Sequence[Branch], points: int | None) -> Iterator[tuple[int, int]]:
    """Consecutive spans of branches that leave the trunk at no more than so many points, one at least."""
    first = 0
    for i in range(1, len(branches) + 1):
        if i == len(branches) or (points and len(branch_points(branches[first : i + 1])) > max(points, 1)):
            yield first, i
            first = i
