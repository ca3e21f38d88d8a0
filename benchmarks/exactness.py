"""How far the one pass is from the slow twin, and how far the slow twin is from itself under another kernel.

In go a model and clips; out come differences of log-probabilities in nats. In fp32 the one pass must be the slow
twin; in bf16 both round, and what may be asked is that they differ no more than two kernels of the slow twin do.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import Any

import numpy as np

from topreward.config import Protocol, load_protocol
from topreward.qwen.attention import attention_set_to
from topreward.qwen.model import QwenVL
from topreward.types import Clip
from ways import Values, Workload


def against_slow_twin(model: QwenVL, clips: list[Clip], tasks: list[str]) -> dict[str, float]:
    """Largest difference over clips, prefixes and answers, per protocol."""
    out = {}
    for name in ("paper", "dense"):
        works = [Workload(model, clip, tasks, load_protocol(name)) for clip in clips]
        out[name] = max(float(np.abs(work.ours() - work.recompute()).max()) for work in works)
    return out


def against_kernels(model: QwenVL, clips: list[Clip], tasks: list[str], protocol: Protocol) -> dict[str, Any]:
    """Per clip the largest difference, ours to the slow twin and the slow twin's (sdpa) to itself (eager)."""
    ours, kernels, spread = [], [], []
    for clip in clips:
        work = Workload(model, clip, tasks, protocol)
        twin = work.recompute()
        ours.append(float(np.abs(work.ours() - twin).max()))
        kernels.append(float(np.abs(_eager(model, work) - twin).max()))
        spread.append(float(np.ptp(twin[:, :, 0])))
    return {
        "clips": len(clips),
        "range_of_a_curve_median": median(spread),
        "ours_to_slow_twin": ours,
        "slow_twin_eager_to_sdpa": kernels,
        "ours_to_slow_twin_median": median(ours),
        "slow_twin_eager_to_sdpa_median": median(kernels),
        "ratio_of_medians": median(ours) / median(kernels) if median(kernels) else None,
    }


def _eager(model: QwenVL, work: Workload) -> Values:
    with ExitStack() as stack:
        for config in (model.text.config, model.visual.config):
            stack.enter_context(attention_set_to(config, "eager"))
        return work.recompute()
