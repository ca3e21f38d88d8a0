"""The benchmarks' arithmetic floor: against torch's own count, and on the released 8B's dimensions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import flops
from architectures import ARCHITECTURES, make
from clips import rolled_clip
from topreward.config import load_protocol
from ways import Workload


def test_as_torch_counts_them() -> None:
    model = make("small", device="cpu", dtype=torch.float32)
    work = Workload(model, rolled_clip(count=21, fps=2.0), ["pick up the cup"], load_protocol("paper", num_prefixes=6))
    ours = flops.of_layout(model.model.config, work.layout)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        work.ours()
    # torch does not see the CPU's fused attention, a few percent at this size
    assert counter.get_total_flops() == pytest.approx(ours.total, rel=0.1)


@pytest.mark.parametrize(("arch", "giga_per_token"), [("qwen3-vl-8b", 13.9), ("qwen3-vl-30b-a3b", 5.5)])
def test_of_the_released_checkpoints(arch: str, giga_per_token: float) -> None:
    class Sizes:
        def __init__(self, sizes: dict[str, Any]) -> None:
            self.__dict__ |= sizes

    text, vision = ARCHITECTURES[arch]
    assert flops.of_decoder(Sizes(text), 1, 0) / 1e9 == pytest.approx(giga_per_token, rel=0.02)
    per_patch = flops.of_vision(Sizes({**vision, "out_hidden_size": text["hidden_size"]}), 1, 256) / 256
    assert per_patch / 1e9 == pytest.approx(0.94, rel=0.05)
