"""Second lesson: what the whole model is asked about a piece of footage, as tokens with their right answers.

In: footage and a tokenizer. Out: Lessons, laid out by the project's own `lay_out`: trunk and branches, side by
side in one sequence, with a mask that lets each token see what it sees in the trunk and branch passes.
Knows nothing of weights and of learning.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from topreward.config import load_protocol
from topreward.demo.footage import Footage
from topreward.demo.world import TASKS
from topreward.estimators.gvl.prompts import texts as gvl_texts
from topreward.estimators.gvl.protocol import load_gvl_protocol
from topreward.estimators.topreward.prompts import question
from topreward.qwen.image_layout import IMAGE_PAD, lay_out_images
from topreward.qwen.layout import Layout, VisionTokens, lay_out
from topreward.qwen.model import QwenVL

MOST_FRAMES = 18
MOST_PREFIXES = 4
INSTRUCTIONS = 2
MOST_SHUFFLED = 5
"""Frames in a GVL prompt, beside the first one."""

# How a clip is retaken. Only the last frame counts for the answer; these make sure that nothing else does.
RETAKES = {"forward": 0.56, "reversed": 0.14, "frozen": 0.20, "shuffled": 0.10}


@dataclass(frozen=True, eq=False)
class Lesson:
    """One sequence of L tokens with what is to be answered in it."""

    ids: NDArray[np.int64]
    """(L,)"""
    positions: NDArray[np.int64]
    """(3, L) M-RoPE positions."""
    visual: NDArray[np.bool_]
    """(L,) true where a visual token stands."""
    mask: NDArray[np.bool_]
    """(L, L) true where query i sees key j."""
    blocks: NDArray[np.uint8] = field(repr=False)
    """(B, 2, H, W, 3) frames of the visual tokens' blocks, in their order."""
    scored: NDArray[np.int64]
    """(S,) where an answer is read."""
    truth: NDArray[np.float32]
    """(S,) probability that the answer is true; NaN where `answer` stands."""
    answer: NDArray[np.int64]
    """(S,) id of the one right token; -1 where `truth` stands."""
    told: NDArray[np.bool_]
    """(S,) true where the right token is of a frame's number or its percentage: all else is the same in every line."""

    def __len__(self) -> int:
        return int(self.ids.size)


def target(progress: NDArray[np.float32], near: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of ` True` that is taught: true progress, kept off 0 and 1.

    Of its range, 0.03 tells whether the gripper has come near where nothing is done yet, and whether it has
    let go where all is done: stages that progress is blind to, and that a frame shows.
    """
    ready: NDArray[np.float32] = near * (1 - progress) + (1 - near) * progress
    return (0.01 + 0.95 * progress + 0.03 * ready).astype(np.float32)


def retake(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """(n,) which of a clip's `count` frames are shown, in the order in which they are shown."""
    how = str(rng.choice(list(RETAKES), p=list(RETAKES.values())))
    if how == "frozen":
        one = 0 if rng.random() < 0.3 else int(rng.integers(count))
        return np.full(int(rng.integers(1, MOST_FRAMES + 1)), one)
    first = int(rng.integers(0, max(count // 2, 1))) if rng.random() < 0.4 else 0
    last = int(rng.integers(first, count)) + 1 if rng.random() < 0.3 else count
    step = int(rng.choice([1, 1, 2])) if last - first > 4 else 1
    shown = np.arange(first, last, step)
    if shown.size > MOST_FRAMES:
        start = int(rng.integers(shown.size - MOST_FRAMES + 1))
        shown = shown[start : start + MOST_FRAMES]
    if how == "reversed":
        return shown[::-1].copy()
    return rng.permutation(shown) if how == "shuffled" else shown


def timestamps(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count,) times, s, with an offset and a spacing that have nothing to do with what is shown."""
    spacing = 0.5 if rng.random() < 0.5 else float(rng.uniform(0.15, 1.2))
    offset = 0.0 if rng.random() < 0.4 else float(rng.uniform(0, 20))
    return np.asarray(offset + spacing * np.arange(count), dtype=np.float64)


def gvl_answer(progress: NDArray[np.float32]) -> list[tuple[str, bool]]:
    """The answer that the prompt asks for, a line for each frame in the order shown, in parts.

    With each part, whether it tells something (a frame's number, its percentage) or is the same in every line.
    Percentages are told in steps of 5: finer ones cannot be seen, and would be learned as noise.
    """
    percentages = [5 * round(20 * float(share)) for share in progress]
    ends = ["%\n"] * (len(percentages) - 1) + ["%"]
    parts = []
    for number, (percentage, end) in enumerate(zip(percentages, ends, strict=True), 1):
        parts += [("Frame ", False), (str(number), True), (": Task Completion Percentages:", False)]
        parts.append((f"{percentage}{end}", True))
    return parts


def wording_of(rng: np.random.Generator, task: int) -> str:
    """One way to put a task."""
    known = list(TASKS.values())[task]
    text = known.instruction if rng.random() < 0.5 else str(rng.choice(known.paraphrases))
    if rng.random() < 0.1:
        text = text.capitalize()
    return text + "." if rng.random() < 0.1 else text


class Teacher:
    """Makes lessons of footage."""

    def __init__(self, model: QwenVL) -> None:
        self.encode = lru_cache(maxsize=20_000)(model.encode)
        self.vision, self.wording = model.vision_tokens, load_protocol("demo").wording
        image_pad, self.end = (model.encode(token)[0] for token in (IMAGE_PAD, "<|im_end|>"))
        self.image = VisionTokens(self.vision.start, self.vision.end, image_pad)
        self.gvl_wording = load_gvl_protocol("gvl-demo").wording

    def progress_lesson(self, film: Footage, rng: np.random.Generator) -> Lesson:
        """Prefixes of a retaken clip, each asked about two tasks."""
        shown = retake(rng, len(film.frames))
        extra = rng.choice(np.arange(1, shown.size), min(shown.size - 1, MOST_PREFIXES - 1), replace=False)
        counts = [*sorted(int(c) for c in extra), int(shown.size)]
        tasks = self._tasks(film, rng)
        texts = [question(self.wording, wording_of(rng, task)) for task in tasks]
        grid = film.frames.shape[1] // 32, film.frames.shape[2] // 32
        layout = lay_out(
            self.encode,
            self.vision,
            opening=self.wording.opening,
            seconds=timestamps(rng, shown.size),
            grid=grid,
            counts=counts,
            questions=[texts] * len(counts),
        )
        ends = shown[np.array(counts) - 1]
        truth = target(film.progress[np.ix_(ends, tasks)], film.near[np.ix_(ends, tasks)])
        trunk = shown[: layout.trunk_blocks * 2].reshape(-1, 2)
        odd = np.repeat(shown[np.array(layout.odd_counts, dtype=np.int64) - 1][:, None], 2, axis=1)
        return side_by_side(layout, film.frames[np.concatenate([trunk, odd])], truth)

    def gvl_lesson(self, film: Footage, rng: np.random.Generator, most: int = MOST_SHUFFLED) -> Lesson:
        """Up to `most` shuffled frames of a clip and the whole right answer, a token at a time."""
        task = film.acted if rng.random() < 0.8 else film.task
        count = min(int(rng.integers((most + 1) // 2, most + 1)), len(film.frames))
        order = rng.choice(len(film.frames), count, replace=False)
        texts = gvl_texts(self.gvl_wording, wording_of(rng, task), [], count)
        grid = film.frames.shape[1] // 32, film.frames.shape[2] // 32
        prompt = lay_out_images(self.encode, self.image, texts=texts, grids=[grid] * (count + 1))
        parts = [(self.encode(text), tells) for text, tells in gvl_answer(film.progress[order, task])]
        answer = np.array([*itertools.chain(*(part for part, _ in parts)), self.end])
        told = np.repeat([*(tells for _, tells in parts), False], [*(len(part) for part, _ in parts), 1])
        start = len(prompt.tokens)
        # What is read at a token is the next one: the answer begins at the prompt's last token.
        ids = np.concatenate([prompt.tokens.ids, answer[:-1]])
        going_on = prompt.next_position + np.arange(len(answer) - 1)
        return Lesson(
            ids=ids,
            positions=np.concatenate([prompt.tokens.positions, np.tile(going_on, (3, 1))], axis=1),
            visual=np.concatenate([prompt.tokens.visual, np.zeros(len(answer) - 1, dtype=bool)]),
            mask=np.tril(np.ones((ids.size, ids.size), dtype=bool)),
            blocks=film.frames[np.concatenate([[0], order])][:, None].repeat(2, axis=1),
            scored=start - 1 + np.arange(len(answer)),
            truth=np.full(len(answer), np.nan, dtype=np.float32),
            answer=answer,
            told=told,
        )

    def _tasks(self, film: Footage, rng: np.random.Generator) -> list[int]:
        first = film.acted if rng.random() < 0.75 else film.task
        others = [task for task in range(len(TASKS)) if task != first]
        rest = rng.choice(others, INSTRUCTIONS - 1, replace=False)
        return [int(task) for task in rng.permutation([first, *rest])]


def side_by_side(layout: Layout, blocks: NDArray[np.uint8], truth: NDArray[np.float32]) -> Lesson:
    """A layout's trunk and branches as one sequence: one forward of it is the trunk pass and the branch pass."""
    trunk, total = len(layout.trunk), len(layout.trunk) + len(layout.branch)
    mask = np.zeros((total, total), dtype=bool)
    mask[:trunk, :trunk] = np.tril(np.ones((trunk, trunk), dtype=bool))
    for branch in layout.branches:
        own = slice(trunk + branch.start, trunk + branch.stop)
        mask[own, : branch.trunk_length] = True
        mask[own, own] = branch.mask()
    return Lesson(
        ids=np.concatenate([layout.trunk.ids, layout.branch.ids]),
        positions=np.concatenate([layout.trunk.positions, layout.branch.positions], axis=1),
        visual=np.concatenate([layout.trunk.visual, layout.branch.visual]),
        mask=mask,
        blocks=blocks,
        scored=trunk + layout.scored.ravel(),
        truth=truth.ravel(),
        answer=np.full(layout.scored.size, -1),
        told=np.zeros(layout.scored.size, dtype=bool),
    )
