"""Greedy continuations: the loop itself, and those of all branches at once on the shared trunk.

In goes a layout whose questions ask for text, the prefilled trunk and the odd blocks' features; out comes one
text per branch. Each step is one forward with one token per unfinished branch; the trunk is never copied,
and every branch keeps only its own tokens' keys and values. Equal to `model.generate` on each whole prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topreward.qwen.layout import Layout, Tokens
from topreward.qwen.model import Features, QwenVL, Trunk
from topreward.qwen.transfer import upload

DECODE_ATTENTION = "topreward_decode"

Step = Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor]


def greedy(
    model: QwenVL,
    hidden: Tensor,
    step: Step,
    *,
    max_new_tokens: int,
    finished: Callable[[int, list[int]], bool] | None = None,
) -> list[list[int]]:
    """The most probable next token of every row, until each row ends.

    `hidden`: (R, hidden) last hidden state of each row's prompt. `step`: which rows go on (A,) and their newest
    tokens (A,) → (A, hidden) the hidden states after those. A row ends with a stop token, after
    `max_new_tokens`, or when `finished(row, its tokens)`. Returns R lists of tokens, stop tokens included.
    """
    active = np.arange(hidden.shape[0])
    answers: list[list[int]] = [[] for _ in active]
    for count in range(1, max_new_tokens + 1):
        chosen = model.next_tokens(hidden)
        for row, token in zip(active, chosen, strict=True):
            answers[row].append(int(token))
        going = ~np.isin(chosen, model.stop_tokens)
        if finished is not None:
            going &= [not finished(int(row), answers[row]) for row in active]
        active, chosen = active[going], chosen[going]
        if not active.size or count == max_new_tokens:
            break
        hidden = step(active, chosen)
    return answers


@dataclass
class DecodePlan:
    """The tokens so far of all branches, and whose they are."""

    trunk: dict[int, tuple[Tensor, Tensor]]
    own: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Per layer, keys and values of all branch tokens so far, side by side."""
    mask: Tensor | None = None
    """(1, 1, Q, trunk + tokens so far) true where seen."""


def decode_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    decode_plan: DecodePlan,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function of one decoding step; appends the step's keys and values to the plan."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if layer in decode_plan.own:
        before_key, before_value = decode_plan.own[layer]
        key, value = torch.cat([before_key, key], dim=2), torch.cat([before_value, value], dim=2)
    decode_plan.own[layer] = (key, value)
    if decode_plan.trunk:
        trunk_key, trunk_value = decode_plan.trunk[layer]
        key, value = torch.cat([trunk_key, key], dim=2), torch.cat([trunk_value, value], dim=2)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    assert decode_plan.mask is not None
    mask = decode_plan.mask.to(query.device)
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return mixed.transpose(1, 2).contiguous(), None


def describe(
    model: QwenVL,
    layout: Layout,
    trunk: Trunk,
    features: Features,
    *,
    max_new_tokens: int,
    only_last: bool = False,
) -> list[str]:
    """The model's greedy answer to each branch's one question. `only_last`: of the longest prefix alone."""
    branches = layout.branches[-1:] if only_last else layout.branches
    first = branches[0].start
    ids, positions = layout.branch.ids[first:], layout.branch.positions[:, first:]
    visual = layout.branch.visual[first:]
    rows = features[slice(int(layout.branch.visual[:first].sum()), None)]

    owner = np.concatenate([np.full(len(b), i) for i, b in enumerate(branches)])
    causal = np.zeros((owner.size, owner.size), dtype=bool)
    for b in branches:
        causal[b.start - first : b.stop - first, b.start - first : b.stop - first] = b.mask()
    seen_trunk = np.array([b.trunk_length for b in branches])
    plan = DecodePlan(trunk.layers)
    plan.mask = _mask(seen_trunk[owner], trunk.length, causal, model.device)

    def step(active: NDArray[np.int64], chosen: NDArray[np.int64]) -> Tensor:
        nonlocal owner
        place[active] += 1
        owner = np.concatenate([owner, active])
        plan.mask = _mask(seen_trunk[active], trunk.length, owner[None] == active[:, None], model.device)
        tokens = Tokens(chosen, np.tile(place[active], (3, 1)), np.zeros(chosen.size, dtype=bool))
        return model.decode(tokens, None, decode_plan=plan)[0]

    with model.attention(DECODE_ATTENTION):
        hidden = model.decode(Tokens(ids, positions, visual), rows, decode_plan=plan)[0]
        last = np.array([b.stop - 1 - first for b in branches])
        place = positions[0, last]
        asked = hidden[upload(last, hidden.device)]
        answers = greedy(model, asked, step, max_new_tokens=max_new_tokens)
    return [model.decode_text(answer) for answer in answers]


def _mask(seen_trunk: NDArray[np.int64], trunk_length: int, own: NDArray[np.bool_], device: torch.device) -> Tensor:
    trunk = np.arange(trunk_length)[None] < seen_trunk[:, None]
    return upload(np.concatenate([trunk, own], axis=1), device)[None, None]


ALL_ATTENTION_FUNCTIONS.register(DECODE_ATTENTION, decode_attention)
