"""The demo checkpoint, from nothing: footage, then seeing, then answering, then a folder.

In: a Plan. Out: a trained model, and a log of how it went. The two lessons live in `seeing` and `training`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from topreward.demo.descent import Rates
from topreward.demo.footage import shoot
from topreward.demo.lessons import MOST_SHUFFLED, Teacher
from topreward.demo.seeing import Log, teach_seeing
from topreward.demo.tiny import demo_texts, make_model, make_tokenizer
from topreward.demo.training import Course, teach_answering
from topreward.qwen.model import QwenVL

GLIMPSE = 4
"""Frames in a row."""
MOST_THREADS = 4
"""The matrices are small: more threads mostly wait for each other."""
TELLING = Course(
    steps=400,
    gvl_from=0,
    gvl_most=((1.0, MOST_SHUFFLED),),
    gvl_images=48,
    rates=Rates(3e-3, 1e-3),
    seed=2,
    shut_for=400,
    average=0.99,
)
"""A last course of whole GVL answers beside progress: to count lines takes longer than to fill them."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the weights."""

    seed: int = 1
    films: int = 6000
    """Episodes for both lessons."""
    glimpses: int = 16_000
    """Short pieces of other episodes, for the first lesson alone: what a tower must see is many tables."""
    seeing_steps: int = 1500
    seeing_blocks: int = 128
    seeing_rates: Rates = field(default_factory=Rates)
    answering: Course = field(default_factory=Course)
    telling: Course = TELLING


def train(plan: Plan, *, log: Log, workers: int = 2, keep: Path | None = None, device: str = "cpu") -> QwenVL:
    """Train a demo model as `plan` says, on `device`.

    `keep`: a folder for the weights after each lesson; a lesson whose weights lie there already is not held
    again. They must have been made with the same plan.
    """
    start = time.perf_counter()

    def timed(line: str) -> None:
        log(f"{time.perf_counter() - start:7.0f} s  cpu {time.process_time():7.0f} s  {line}")

    films = shoot(plan.films, seed=plan.seed, workers=workers)
    glimpses = shoot(plan.glimpses, seed=plan.seed + 1, longest=GLIMPSE, workers=workers)
    for name, footage in (("films", films), ("glimpses", glimpses)):
        timed(f"{name:9s} {len(footage)}, {sum(len(f.frames) for f in footage)} frames")
    torch.set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
    model = make_model(make_tokenizer(demo_texts()), plan.seed, device)
    timed(f"model     {sum(p.numel() for p in model.model.parameters())} parameters")
    look = partial(teach_seeing, model, films + glimpses, steps=plan.seeing_steps, blocks=plan.seeing_blocks)
    lessons: dict[str, Callable[[], None]] = {
        "seeing": partial(look, rates=plan.seeing_rates, seed=plan.seed, log=timed),
        "answering": partial(teach_answering, model, Teacher(model), films, plan.answering, timed),
        "telling": partial(teach_answering, model, Teacher(model), films, plan.telling, timed),
    }
    for name, hold in lessons.items():
        kept = keep / f"{name}.pt" if keep else None
        if kept and kept.is_file():
            model.model.load_state_dict(torch.load(kept, weights_only=True))
            timed(f"{name} taken from {kept.name}")
            continue
        hold()
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.model.state_dict(), kept)
    return model
