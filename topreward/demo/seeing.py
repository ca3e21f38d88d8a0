"""First lesson: the vision tower learns to read the state of the table.

In: footage and an untrained model. Out: the same model, whose visual tokens tell every task's progress.
Knows nothing of text. Without it the whole model stays stuck on guessing progress from elapsed time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, mse_loss

from topreward.demo.descent import Descent, Rates
from topreward.demo.footage import Footage, ahead, hardness
from topreward.demo.world import TASKS
from topreward.qwen import pixels
from topreward.qwen.model import QwenVL

Log = Callable[[str], None]


@contextmanager
def equal_blocks(model: QwenVL) -> Iterator[None]:
    """Let the vision tower work on all blocks at once, with an attention whose backward pass is fast on a CPU.

    The numbers stay the same. Only for training: what is measured later runs the library's own code.
    """
    tower: Any = model.visual
    attentions = [block.attn for block in tower.blocks]
    for attention in attentions:
        attention.forward = partial(_attend, attention)
    tower.patch_embed.forward = partial(_embed, tower.patch_embed.proj)
    try:
        yield
    finally:
        for attention in attentions:
            del attention.forward
        del tower.patch_embed.forward


def _embed(convolution: nn.Conv3d, patches: Tensor) -> Tensor:
    return linear(patches, convolution.weight.flatten(1), convolution.bias)


def _attend(
    attention: Any,
    hidden: Tensor,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    block_length: int | None = None,
    **_: Any,
) -> Tensor:
    blocks = len(hidden) // block_length if block_length else len(cu_seqlens) - 1
    qkv = attention.qkv(hidden).view(blocks, -1, 3, attention.num_heads, hidden.shape[-1] // attention.num_heads)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (blocks, heads, patches, head_dim) each
    cos, sin = (x.view(blocks, 1, -1, x.shape[-1]).to(query.dtype) for x in position_embeddings)
    query, key = (x * cos + _rotated(x) * sin for x in (query, key))
    # Written out: for so few patches the fused kernel's backward takes ten times as long on a CPU.
    weights = (query @ key.transpose(-1, -2) * attention.scaling).softmax(-1)
    mixed = weights.to(value.dtype) @ value
    out: Tensor = attention.proj(mixed.transpose(1, 2).reshape(hidden.shape[0], -1))
    return out


def _rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


class Readout(nn.Module):
    """What stands on the table, read from a block's visual tokens: one attention and one value for each quantity.

    Thrown away afterwards; it is as simple as what a language model's attention can do with the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        count = 3 * len(TASKS) + 4
        self.norm = nn.RMSNorm(width)
        self.scores = nn.Linear(width, count)
        self.values = nn.Linear(width, count)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(blocks, tokens, width) → (blocks, 18) logits of Seen.states; (blocks, 4) of Seen.grippers."""
        tokens = self.norm(tokens)
        out = (self.scores(tokens).softmax(1) * self.values(tokens)).sum(1)
        return out[:, : 3 * len(TASKS)], out[:, 3 * len(TASKS) :]


class Blocks:
    """Draws random blocks of two frames with the table's state."""

    def __init__(self, pool: Sequence[Footage], rng: np.random.Generator) -> None:
        self.pool, self.rng = pool, rng
        owner = np.concatenate([np.full(len(f.frames), i) for i, f in enumerate(pool)])
        place = np.concatenate([np.arange(len(f.frames)) for f in pool])
        done = np.concatenate([f.progress[:, f.acted] for f in pool])
        weight = np.where(done > 0.02, 1.0, 0.4)  # frames where something has been done tell more
        weight *= hardness(pool)[owner]
        self._cumulative = np.cumsum(weight / weight.sum())
        self._owner, self._place = owner, place

    def draw(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """(count, 2, H, W, 3) frames; (count, 18) progress at the end, at the start, nearness; (count, 4) gripper."""
        chosen = np.minimum(np.searchsorted(self._cumulative, self.rng.random(count)), self._owner.size - 1)
        # The frame before; the same twice, as in an odd prefix and in an image; the frame after, time reversed.
        shifts = self.rng.choice([-1, 0, 1], size=count, p=[0.6, 0.2, 0.2])
        frames, states, grippers = [], [], []
        for row, shift in zip(chosen, shifts, strict=True):
            film, last = self.pool[self._owner[row]], int(self._place[row])
            first = min(max(last + int(shift), 0), len(film.frames) - 1)
            frames.append(film.frames[[first, last]])
            states.append(np.concatenate([film.progress[last], film.progress[first], film.near[last]]))
            grippers.append(film.gripper[last])
        return np.stack(frames), np.stack(states), np.stack(grippers)


def as_pixels(frames: NDArray[np.uint8], rng: np.random.Generator, groups: NDArray[np.int64]) -> Tensor:
    """(B, 2, H, W, 3) frames → (2B, 3, H, W) levels, a little different each time.

    Blocks of one group (one clip) are changed alike: mirrored or not (the world is its own mirror image),
    lighter or darker, a little noise as from a video codec.
    """
    count = int(groups.max()) + 1
    pixels_ = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float()
    group = torch.from_numpy(groups)
    mirrored = torch.from_numpy(rng.random(count) < 0.5)[group]
    pixels_[mirrored] = pixels_[mirrored].flip(-1)
    gain = torch.from_numpy(rng.uniform(0.92, 1.08, (count, 1, 3, 1, 1)).astype(np.float32))[group]
    shift = torch.from_numpy(rng.uniform(-8, 8, (count, 1, 1, 1, 1)).astype(np.float32))[group]
    noise = torch.from_numpy((rng.random((count, 1, 1, 1, 1)) * 4).astype(np.float32))[group]
    # One picture of noise for all frames of a batch: drawing as much as there are pixels would cost more than a step.
    grain = torch.from_numpy(rng.standard_normal(pixels_.shape[1:], dtype=np.float32))
    pixels_.mul_(gain).add_(shift).add_(noise * grain).clamp_(0, 255)
    return pixels_.flatten(0, 1)


def teach_seeing(
    model: QwenVL, pool: Sequence[Footage], *, steps: int, blocks: int, rates: Rates, seed: int, log: Log
) -> None:
    """Train the vision tower by regression of the table's state from its output tokens."""
    torch.manual_seed(seed)
    readout = Readout(model.visual.config.out_hidden_size).to(model.device)
    weights = dict(model.visual.named_parameters()) | dict(readout.named_parameters())
    descent = Descent([(weights, rates)], steps=steps, warm_up=0.15)
    seen: list[tuple[float, float]] = []
    with equal_blocks(model):
        for step, batch in enumerate(ahead(draw_batches(pool, np.random.default_rng([seed, 1]), blocks, steps))):
            loss, error = seeing_loss(model, readout, batch)
            descent.step(loss)
            seen.append((float(loss.detach()), error))
            if (step + 1) % 100 == 0:
                mean = np.mean(seen, axis=0)
                log(f"seeing {step + 1:5d}  loss {mean[0]:.4f}  progress error {mean[1]:.4f}")
                seen.clear()


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch of random blocks."""

    patches: Tensor
    """(blocks · 4hw, 1536)"""
    grid: tuple[int, int]
    states: Tensor
    """(blocks, 18) progress at the end, progress at the start, nearness of the gripper."""
    grippers: Tensor
    """(blocks, 4)"""


def draw_batches(pool: Sequence[Footage], rng: np.random.Generator, count: int, steps: int) -> Iterator[Seen]:
    """`steps` batches of `count` random blocks."""
    source = Blocks(pool, rng)
    for _ in range(steps):
        frames, states, grippers = source.draw(count)
        patches = pixels.to_patches(as_pixels(frames, rng, np.arange(count)))
        grid = pixels.token_grid((frames.shape[2], frames.shape[3]))
        # The gripper's sign of x turns with the mirror: its distance from the middle is what is left.
        yield Seen(patches, grid, torch.from_numpy(states), torch.from_numpy(np.abs(grippers)))


def seeing_loss(model: QwenVL, readout: Readout, batch: Seen) -> tuple[Tensor, float]:
    """The loss of a batch, and the mean absolute error of all tasks' progress at the blocks' ends."""
    tasks = len(TASKS)
    states, grippers = batch.states.to(model.device), batch.grippers.to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16):
        features = model.see(batch.patches, batch.grid)
    logits, places = readout(features.embeds.float().view(len(states), batch.grid[0] * batch.grid[1], -1))
    importance = torch.ones(3 * tasks, device=model.device)
    importance[tasks:] = 0.3  # what counts is the progress at the block's end
    loss = (binary_cross_entropy_with_logits(logits, states, reduction="none") * importance).mean() * 3
    loss = loss + 0.5 * mse_loss(places, grippers)
    error = (logits[:, :tasks].sigmoid() - states[:, :tasks]).abs()
    return loss, float(error.mean().detach())
