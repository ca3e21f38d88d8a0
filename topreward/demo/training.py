"""Second lesson, the learning: the whole model is trained on lessons, many to a batch.

In: lessons and a model whose vision tower can already see. Out: the same model, answering. A batch is one
forward of the library's own layers; padded sequences, each with its own mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topreward.demo.descent import Descent, Rates
from topreward.demo.footage import Footage, ahead, hardness
from topreward.demo.lessons import MOST_SHUFFLED, Lesson, Teacher
from topreward.demo.seeing import Log, as_pixels, equal_blocks
from topreward.qwen import pixels
from topreward.qwen.model import QwenVL

LESSON_ATTENTION = "topreward_lesson"


@dataclass(frozen=True, eq=False)
class Batch:
    """R lessons, padded to L tokens."""

    ids: Tensor
    """(R, L)"""
    positions: Tensor
    """(4, R, L): the plain index, then M-RoPE in time, height and width."""
    visual: Tensor
    """(R, L)"""
    mask: Tensor
    """(R, 1, L, L) what is added to the scores: 0 where seen, very little elsewhere."""
    patches: Tensor
    """(visual tokens · 4, 1536)"""
    grid: tuple[int, int]
    rows: Tensor
    """(S,) lesson of each scored place."""
    columns: Tensor
    """(S,) token of each scored place."""
    truth: Tensor
    """(S,) as in Lesson."""
    answer: Tensor
    """(S,) as in Lesson."""
    told: Tensor
    """(S,) as in Lesson."""

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        return replace(self, **{key: value.to(device) for key, value in vars(self).items() if key != "grid"})


def pack(lessons: Sequence[Lesson], shown: Tensor) -> Batch:
    """Lessons side by side. `shown`: (2 · blocks, 3, H, W) levels of all their blocks, in order."""
    count, longest = len(lessons), max(map(len, lessons))
    ids = np.zeros((count, longest), dtype=np.int64)
    positions = np.zeros((4, count, longest), dtype=np.int64)
    positions[0] = np.arange(longest)
    visual = np.zeros((count, longest), dtype=bool)
    mask = np.zeros((count, 1, longest, longest), dtype=bool)
    mask[:, 0, np.arange(longest), np.arange(longest)] = True  # padding sees itself: nobody may see nothing
    for row, lesson in enumerate(lessons):
        n = len(lesson)
        ids[row, :n], visual[row, :n], mask[row, 0, :n, :n] = lesson.ids, lesson.visual, lesson.mask
        positions[1:, row, :n] = lesson.positions
    rows = np.concatenate([np.full(lesson.scored.size, row) for row, lesson in enumerate(lessons)])
    return Batch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        visual=torch.from_numpy(visual),
        mask=torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill_(torch.from_numpy(~mask), -1e9),
        patches=pixels.to_patches(shown),
        grid=pixels.token_grid((shown.shape[2], shown.shape[3])),
        rows=torch.from_numpy(rows),
        columns=torch.from_numpy(np.concatenate([lesson.scored for lesson in lessons])),
        truth=torch.from_numpy(np.concatenate([lesson.truth for lesson in lessons])),
        answer=torch.from_numpy(np.concatenate([lesson.answer for lesson in lessons])),
        told=torch.from_numpy(np.concatenate([lesson.told for lesson in lessons])),
    )


def lesson_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, *, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention written out: the fused kernel's backward takes five times as long on a CPU.

    `query`: (R, heads, L, head_dim); `key`, `value`: (R, KV heads, L, head_dim). Returns (R, L, heads, head_dim).
    """
    lessons, heads, length, width = query.shape
    kv_heads = key.shape[1]
    grouped = (query * scaling).view(lessons, kv_heads, heads // kv_heads, length, width)
    scores = grouped @ key[:, :, None].transpose(-1, -2)
    weights = scores.add_(attention_mask[:, :, None]).softmax(-1).to(value.dtype)
    mixed = (weights @ value[:, :, None]).view(lessons, heads, length, width)
    return mixed.transpose(1, 2).contiguous(), None


def answers(model: QwenVL, batch: Batch, *, eyes_shut: bool = False) -> Tensor:
    """(S, vocabulary) logits at the scored places. `eyes_shut`: the vision tower gets no gradient."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not eyes_shut):
        features = model.see(batch.patches, batch.grid)
    embeds = model.text.embed_tokens(batch.ids)
    embeds = embeds.masked_scatter(batch.visual[..., None], features.embeds.to(embeds.dtype))
    with model.attention(LESSON_ATTENTION):
        hidden = model.text(
            inputs_embeds=embeds,
            position_ids=batch.positions,
            attention_mask=batch.mask,
            visual_pos_masks=batch.visual,
            deepstack_visual_embeds=features.deepstack,
            use_cache=False,
        ).last_hidden_state
    logits: Tensor = model.model.lm_head(hidden[batch.rows, batch.columns].float())
    return logits


def answering_loss(model: QwenVL, batch: Batch, *, eyes_shut: bool = False) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy with the right answers, and how far off they are.

    `error`: mean |p(True) - truth|. `told`: share of right tokens in GVL's numbers and percentages.
    """
    true, false = model.answer_id(" True"), model.answer_id(" False")
    batch = batch.to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16):
        logits = answers(model, batch, eyes_shut=eyes_shut)
    log_probs = logits.float().log_softmax(-1)
    soft = batch.answer < 0
    p = batch.truth[soft]
    losses, measures = [], {}
    if soft.any():
        losses.append(-(p * log_probs[soft, true] + (1 - p) * log_probs[soft, false]).mean())
        measures["error"] = float((log_probs[soft, true].exp() - p).abs().mean().detach())
    if not soft.all():
        surprise = -log_probs.gather(1, batch.answer.clamp(min=0)[:, None])[:, 0]
        told = batch.told
        # Two means: most tokens are the same in all answers, and would drown those that have to be seen.
        losses += [surprise[told].mean(), surprise[~soft & ~told].mean()]
        measures["told"] = float((log_probs[told].argmax(-1) == batch.answer[told]).float().mean())
    return torch.stack(losses).sum(), measures


@dataclass(frozen=True)
class Course:
    """How long, how fast, and what is asked when."""

    steps: int = 2100
    lessons: tuple[int, int] = (12, 8)
    """Progress lessons a step, before and after `gvl_from`."""
    gvl_from: int = 800
    """The step from which GVL is asked as well: by then there is something to tell."""
    gvl_most: tuple[tuple[float, int], ...] = ((0.4, 1), (0.55, 2), (0.7, 3), (0.8, 4), (1.0, MOST_SHUFFLED))
    """Until which share of the steps from then on a GVL lesson shows how many frames at most: first the model
    learns to tell one frame's percentage, then which of several frames a line is about."""
    gvl_images: int = 28
    """Images in the GVL lessons of a step, about."""
    rates: Rates = field(default_factory=Rates)
    seed: int = 1
    vision_rate: float = 0.15
    """The vision tower's share of the rates: it has learned already."""
    shut_for: int = 1500
    """First steps in which the vision tower stays as it is: an untrained decoder would only spoil it."""
    average: float = 0.997
    """Of the weights over the steps: what is kept at the end."""

    def most_frames(self, step: int) -> int:
        """Frames in a GVL lesson of this step, at most; 0 before there are any."""
        share = (step - self.gvl_from) / max(self.steps - self.gvl_from, 1)
        return 0 if share < 0 else next(frames for until, frames in self.gvl_most if share < until)


def draw_lessons(teacher: Teacher, pool: Sequence[Footage], course: Course) -> Iterator[list[Batch]]:
    """A batch of progress lessons and, later on, one of GVL lessons for each step, on films drawn by lot."""
    rng = np.random.default_rng([course.seed, 2])
    shares = np.cumsum(hardness(pool) / hardness(pool).sum())[:-1]

    def films(count: int) -> list[Footage]:
        return [pool[film] for film in np.searchsorted(shares, rng.random(count))]

    for step in range(course.steps):
        most = course.most_frames(step)
        lessons = [[teacher.progress_lesson(film, rng) for film in films(course.lessons[most > 0])]]
        if most:
            count = max(course.gvl_images // (most + 1), 6)
            lessons.append([teacher.gvl_lesson(film, rng, most) for film in films(count)])
        yield [pack(some, shown_in(some, rng)) for some in lessons]


def shown_in(lessons: Sequence[Lesson], rng: np.random.Generator) -> Tensor:
    """(2 · blocks, 3, H, W) levels of all their blocks, each lesson's changed a little in its own way."""
    groups = np.concatenate([np.full(len(lesson.blocks), i) for i, lesson in enumerate(lessons)])
    return as_pixels(np.concatenate([lesson.blocks for lesson in lessons]), rng, groups)


def teach_answering(model: QwenVL, teacher: Teacher, pool: Sequence[Footage], course: Course, log: Log) -> None:
    """Train the whole model; leaves it with the average of the last weights."""
    core: Any = model.model
    named = dict(core.named_parameters())
    tower = {name: weight for name, weight in named.items() if "visual" in name}
    decoder = {name: weight for name, weight in named.items() if name not in tower}
    rates = course.rates
    descent = Descent([(decoder, rates), (tower, rates.times(course.vision_rate))], steps=course.steps, warm_up=0.1)
    averaged = {name: weight.detach().clone() for name, weight in named.items()}
    seen: list[dict[str, float]] = []
    with equal_blocks(model):
        for step, batches in enumerate(ahead(draw_lessons(teacher, pool, course))):
            parts = [answering_loss(model, batch, eyes_shut=step < course.shut_for) for batch in batches]
            descent.step(torch.stack([loss for loss, _ in parts]).sum())
            with torch.no_grad():
                for name, weight in named.items():
                    averaged[name].lerp_(weight, 1 - course.average if step else 1.0)
            seen.append({key: value for _, measures in parts for key, value in measures.items()})
            if (step + 1) % 50 == 0:
                means = {key: float(np.mean([m[key] for m in seen if key in m])) for key in seen[-1]}
                log(f"answering {step + 1:5d}  " + "  ".join(f"{k} {v:.4f}" for k, v in means.items()))
                seen.clear()
    core.load_state_dict(averaged, strict=False)  # the head is tied to the embeddings: it has no name of its own


ALL_ATTENTION_FUNCTIONS.register(LESSON_ATTENTION, lesson_attention)
