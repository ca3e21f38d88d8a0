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

from topreward.demo.footage import shoot
from topreward.demo.lessons import Teacher
from topreward.demo.seeing import Log, teach_seeing
from topreward.demo.tiny import demo_texts, make_model, make_tokenizer
from topreward.demo.training import Course, teach_answering
from topreward.qwen.model import QwenVL


@dataclass(frozen=True)
class Plan:
    """Everything that decides the weights."""

    seed: int = 1
    episodes: int = 6000
    seeing_steps: int = 2000
    seeing_blocks: int = 128
    seeing_rate: float = 1.5e-3
    course: Course = field(default_factory=Course)


def train(plan: Plan, *, log: Log, workers: int = 2, keep: Path | None = None) -> QwenVL:
    """Train a demo model as `plan` says.

    `keep`: a folder for the weights after each lesson; a lesson whose weights lie there already is not held
    again. They must have been made with the same plan.
    """
    start = time.perf_counter()

    def timed(line: str) -> None:
        log(f"{time.perf_counter() - start:7.0f} s  cpu {time.process_time():7.0f} s  {line}")

    pool = shoot(plan.episodes, seed=plan.seed, workers=workers)
    timed(f"footage   {len(pool)} episodes, {sum(len(f.frames) for f in pool)} frames")
    # One thread for the weights, one that draws lessons: more threads for matrices this small only wait.
    torch.set_num_threads(1)
    model = make_model(make_tokenizer(demo_texts()), plan.seed)
    timed(f"model     {sum(p.numel() for p in model.model.parameters())} parameters")
    look = partial(teach_seeing, model, pool, steps=plan.seeing_steps, blocks=plan.seeing_blocks)
    lessons: dict[str, Callable[[], None]] = {
        "seeing": partial(look, rate=plan.seeing_rate, seed=plan.seed, log=timed),
        "answering": partial(teach_answering, model, Teacher(model), pool, plan.course, timed),
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
