"""The demo checkpoint, from nothing: footage, then seeing, then answering, then a folder.

In: a Plan. Out: a trained model, and a log of how it went. The two lessons live in `seeing` and `training`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
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
    seeing_steps: int = 1000
    seeing_blocks: int = 128
    seeing_rate: float = 1.5e-3
    course: Course = field(default_factory=lambda: Course(steps=1800, lessons=10, gvl_lessons=4, rate=1.5e-3, seed=1))


def train(plan: Plan, *, log: Log, workers: int = 2, keep: Path | None = None) -> QwenVL:
    """Train a demo model as `plan` says.

    `keep`: a folder for the weights after the first lesson; where they lie there already, that lesson is not
    held again. It must have been made with the same plan.
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
    seen = keep / "seeing.pt" if keep else None
    if seen and seen.is_file():
        model.model.load_state_dict(torch.load(seen, weights_only=True))
        timed(f"seeing    taken from {seen.name}")
    else:
        teach_seeing(
            model,
            pool,
            steps=plan.seeing_steps,
            blocks=plan.seeing_blocks,
            rate=plan.seeing_rate,
            seed=plan.seed,
            log=timed,
        )
        if seen:
            seen.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.model.state_dict(), seen)
    teach_answering(model, Teacher(model), pool, plan.course, timed, keep=keep)
    return model
