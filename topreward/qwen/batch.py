"""Greedy answers to several prompts at once, with one KV cache for the batch.

In go whole prompts with images and what the vision tower saw of each; out come one answer each. The prompts
share nothing, so each is prefilled by a forward of its own, without padding; from there on every step is one
forward with one token per unfinished prompt. Equal, token for token in fp32, to `model.generate` on each prompt
alone, which is kept here as the slow twin.

The cache is one buffer per layer with a row per prompt, written in place and never copied as it grows. When a
prompt is done, the last row moves into its place, so that the rows in use stay together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topreward.errors import ModelError
from topreward.qwen.generation import greedy
from topreward.qwen.image_layout import IMAGE_PAD, ImagePrompt
from topreward.qwen.layout import Tokens, VisionTokens
from topreward.qwen.model import Features, QwenVL
from topreward.qwen.transfer import upload

ROW_ATTENTION = "topreward_rows"

Finished = Callable[[list[int]], bool]
Stopped = Literal["answered", "end", "budget"]


@dataclass(frozen=True)
class Answer:
    """What the model said to one prompt."""

    tokens: tuple[int, ...]
    text: str
    """Without special tokens."""
    stopped: Stopped
    """By the caller, who had what he asked for; by an end token; or by the limit of new tokens."""


def image_tokens(model: QwenVL) -> VisionTokens:
    """Ids of the tokens around and inside an image. Raises ModelError where tokenizer and config disagree."""
    pad = model.tokenizer.token_to_id(IMAGE_PAD)
    if pad is None or pad != model.model.config.image_token_id:
        raise ModelError(f"the tokenizer has {IMAGE_PAD} at {pad}, the config at {model.model.config.image_token_id}")
    return VisionTokens(model.vision_tokens.start, model.vision_tokens.end, int(pad))


class RowCache:
    """Keys and values of a batch: row by row, in place."""

    def __init__(self, lengths: Sequence[int], new_tokens: int) -> None:
        """`lengths`: tokens of each prompt. `new_tokens`: most that any row grows by."""
        self.lengths = np.array(lengths, dtype=np.int64)
        """(R,) tokens that each prompt and its answer have so far."""
        self.capacity = max(lengths) + new_tokens
        self.rows = list(range(len(lengths)))
        """Whose keys lie at each place of the buffers."""
        self.keys: list[Tensor] = []
        """Per layer (R, KV heads, capacity, head_dim)."""
        self.values: list[Tensor] = []
        self._step: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def prefilled(self, row: int, cache: DynamicCache) -> None:
        """Take over the keys and values of one prompt."""
        for layer, part in enumerate(cache.layers):
            if layer == len(self.keys):
                _, heads, _, width = part.keys.shape
                shape = (len(self.rows), heads, self.capacity, width)
                # Zeros: a hidden place has weight 0, but 0 times whatever memory held may be NaN.
                self.keys.append(part.keys.new_zeros(shape))
                self.values.append(part.values.new_zeros(shape))
            self.keys[layer][row, :, : self.lengths[row]] = part.keys[0]
            self.values[layer][row, :, : self.lengths[row]] = part.values[0]

    def keep(self, active: NDArray[np.int64]) -> None:
        """Let go of all rows but the active ones, and move what is left together."""
        going = set(active.tolist())
        for place in reversed(range(len(self.rows))):
            if self.rows[place] in going:
                continue
            last = len(self.rows) - 1
            if place != last:
                length = self.lengths[self.rows[last]]
                for buffer in (*self.keys, *self.values):
                    buffer[place, :, :length] = buffer[last, :, :length]
                self.rows[place] = self.rows[last]
            self.rows.pop()

    def grow(self) -> None:
        """Make room for one more token in every row that is left."""
        self.lengths[self.rows] += 1
        self._step.clear()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Write the newest token's key and value, then attend over each row's own tokens.

        `query`: (1, heads, A, head_dim), token i for the row at place i; `key`, `value`: (1, KV heads, A,
        head_dim). Returns (1, A, heads, head_dim).
        """
        places, newest, seen = self._places(key.device)
        keys, values = self.keys[layer], self.values[layer]
        keys[places, :, newest] = key[0].transpose(0, 1)
        values[places, :, newest] = value[0].transpose(0, 1)
        _, heads, count, width = query.shape
        # Query heads that share a KV head become the queries of one attention: nothing is repeated.
        grouped = query[0].transpose(0, 1).reshape(count, key.shape[1], heads // key.shape[1], width)
        longest = seen.shape[-1]
        mixed = scaled_dot_product_attention(
            grouped, keys[:count, :, :longest], values[:count, :, :longest], attn_mask=seen, scale=scaling
        )
        return mixed.reshape(1, count, heads, width)

    def _places(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """(A,) places, (A,) index of the newest token, (A, 1, 1, longest) true where seen."""
        if device not in self._step:
            lengths = self.lengths[self.rows]
            seen = np.arange(lengths.max())[None] < lengths[:, None]
            places = torch.arange(len(self.rows), device=device)
            self._step[device] = (places, upload(lengths - 1, device), upload(seen, device)[:, None, None])
        return self._step[device]


def row_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    row_cache: RowCache,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function of one decoding step of a batch."""
    return row_cache.attend(int(module.layer_idx), query, key, value, scaling), None  # type: ignore[arg-type]


def answer_all(
    model: QwenVL,
    prompts: Sequence[ImagePrompt],
    see: Callable[[int], Features],
    *,
    max_new_tokens: int,
    finished: Sequence[Finished],
) -> list[Answer]:
    """The model's greedy answers to several prompts.

    `see`: number of a prompt → what the vision tower saw of its images, in their order; asked for one prompt at a
    time. `finished`: for each prompt, whether its answer's tokens so far are all that is wanted.
    """
    cache = RowCache([len(prompt.tokens) for prompt in prompts], max_new_tokens)
    place = np.array([prompt.next_position for prompt in prompts]) - 1
    asked = []
    for row, prompt in enumerate(prompts):
        filled = DynamicCache()
        hidden = model.decode(prompt.tokens, see(row), cache=filled)
        asked.append(hidden[0, -1].clone())  # a view would keep the whole prompt's hidden states
        cache.prefilled(row, filled)
        del filled, hidden

    def step(active: NDArray[np.int64], chosen: NDArray[np.int64]) -> Tensor:
        cache.keep(active)
        cache.grow()
        # `active` is in increasing order, the buffers' rows are not.
        order = np.searchsorted(active, cache.rows)
        place[active] += 1
        positions = np.tile(place[cache.rows], (3, 1))
        tokens = Tokens(chosen[order], positions, np.zeros(active.size, dtype=bool))
        hidden = model.decode(tokens, None, row_cache=cache)[0]
        return hidden[upload(np.argsort(order), hidden.device)]

    with model.attention(ROW_ATTENTION):
        said = greedy(
            model,
            torch.stack(asked),
            step,
            max_new_tokens=max_new_tokens,
            finished=lambda row, tokens: finished[row](tokens),
        )
    return [_answer(model, tokens, done) for tokens, done in zip(said, finished, strict=True)]


def answer_plainly(
    model: QwenVL, prompt: ImagePrompt, patches: Tensor, *, max_new_tokens: int, finished: Finished
) -> Answer:
    """The slow twin: transformers' own greedy `generate` on one whole prompt, cut where `finished`.

    `patches`: (…, 1536) of all images, in their order.
    """
    ids = torch.tensor([model.encode(prompt.text)], device=model.device)
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": patches.to(model.device, model.visual.dtype),
        "image_grid_thw": torch.tensor([[1, 2 * h, 2 * w] for h, w in prompt.grids], device=model.device),
    }
    if "mm_token_type_ids" in inspect.signature(model.core.forward).parameters:
        # Required by transformers 5, unknown to 4.57.
        inputs["mm_token_type_ids"] = (ids == image_tokens(model).pad).int()
    out = model.model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=model.stop_tokens,
        pad_token_id=model.stop_tokens[0],
    )
    tokens = out[0, ids.shape[1] :].tolist()
    cut = next((n for n in range(1, len(tokens)) if finished(tokens[:n])), len(tokens))
    return _answer(model, tokens[:cut], finished)


def _answer(model: QwenVL, tokens: list[int], finished: Finished) -> Answer:
    stopped: Stopped = "budget"
    if tokens[-1] in model.stop_tokens:
        stopped = "end"
    elif finished(tokens):
        stopped = "answered"
    return Answer(tuple(tokens), model.decode_text(tokens), stopped)


ALL_ATTENTION_FUNCTIONS.register(ROW_ATTENTION, row_attention)
