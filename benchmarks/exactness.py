"""How far the one pass is from the slow twin, and how far the slow twin is from itself under another kernel.

In go a model and clips; out come differences of log-probabilities in nats. In fp32 the one pass must be the slow
twin; in bf16 both round, and what may be asked is that they differ no more than two kernels of the slow twin do.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    """Per clip the largest difference, ours to the slow twin and the slow twin's (sdpa) to itself (eager).

    The slow twin rounds its logits to its dtype, ours are read in fp32; so both are also compared with the same head.
    """
    spread: list[float] = []
    as_it_is, same_head = _Pairs(), _Pairs()
    for clip in clips:
        work = Workload(model, clip, tasks, protocol)
        ours, twin, eager = work.ours(), _twin(work), _eager(model, work)
        as_it_is.add(ours, twin.values, eager.values)
        same_head.add(ours, twin.read_as_ours, eager.read_as_ours)
        spread.append(float(np.ptp(twin.values[:, :, 0])))
    return {
        "clips": len(clips),
        "range_of_a_curve_median": median(spread),
        **as_it_is.report(),
        "same_head": same_head.report(),
    }


class _Pairs:
    """Largest differences, clip by clip."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.kernels: list[float] = []

    def add(self, ours: Values, twin: Values, eager: Values) -> None:
        self.ours.append(float(np.abs(ours - twin).max()))
        self.kernels.append(float(np.abs(eager - twin).max()))

    def report(self) -> dict[str, Any]:
        ours, kernels = median(self.ours), median(self.kernels)
        return {
            "ours_to_slow_twin": self.ours,
            "slow_twin_eager_to_sdpa": self.kernels,
            "ours_to_slow_twin_median": ours,
            "slow_twin_eager_to_sdpa_median": kernels,
            "ratio_of_medians": ours / kernels if kernels else None,
        }


@dataclass(frozen=True)
class _Twin:
    values: Values
    read_as_ours: Values
    """From the slow twin's own last hidden states, by the head that reads ours."""


def _twin(work: Workload) -> _Twin:
    last: list[Tensor] = []
    head = work.model.model.lm_head
    hook = head.register_forward_pre_hook(lambda _, given: last.append(given[0][0, -1]))
    try:
        values = work.recompute()
    finally:
        hook.remove()
    hidden = torch.stack(last).reshape(*values.shape[:-1], -1)
    return _Twin(values, work.model.log_probs(hidden, work.answers))


def _eager(model: QwenVL, work: Workload) -> _Twin:
    with ExitStack() as stack:
        for config in (model.text.config, model.visual.config):
            stack.enter_context(attention_set_to(config, "eager"))
        return _twin(work)
