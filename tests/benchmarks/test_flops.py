"""The benchmarks' arithmetic floor: against products counted by hand, and on the released 8B's dimensions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import flops
from architectures import ARCHITECTURES, make
from clips import rolled_clip
from products import Products
from topreward.config import load_protocol
from ways import Workload


class Sizes:
    """A part of a config, as attributes."""

    def __init__(self, **sizes: Any) -> None:
        self.__dict__ |= sizes


def test_of_a_decoder_by_hand() -> None:
    text = Sizes(
        num_hidden_layers=3,
        hidden_size=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=5,
        intermediate_size=7,
    )
    queries_and_output, keys_and_values, mlp = 2 * (8 * 20), 2 * (8 * 10), 3 * (8 * 7)
    per_token = 2 * (queries_and_output + keys_and_values + mlp)
    per_pair = 2 * 2 * (4 * 5)  # a score and a mixture of each head
    assert flops.of_decoder(text, 6, 21) == 3 * (6 * per_token + 21 * per_pair)


def test_of_a_mixture_of_experts_by_hand() -> None:
    text = Sizes(
        num_hidden_layers=3, hidden_size=8, num_attention_heads=4, num_key_value_heads=2, head_dim=5,
        intermediate_size=7, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=3,
    )  # fmt: skip
    attention, router, experts = 2 * (8 * 20) + 2 * (8 * 10), 8 * 6, 2 * (3 * (8 * 3))
    assert flops.of_decoder(text, 6, 0) == 3 * 6 * 2 * (attention + router + experts)


def test_of_a_tower_by_hand() -> None:
    vision = Sizes(depth=2, hidden_size=6, intermediate_size=9, out_hidden_size=5, deepstack_visual_indexes=[0])
    blocks, patches = 3, 8  # of 16x16x3 px in two frames; a merger makes one token of 4 patches
    embedding = 2 * (3 * 2 * 16 * 16 * 6)
    layers = 2 * (2 * (4 * 6 * 6) + 2 * (2 * 6 * 9) + 2 * 2 * (patches * 6))
    mergers = 2 * (2 * (24 * 24) + 2 * (24 * 5))
    assert flops.of_vision(vision, blocks, patches) == blocks * (
        patches * (embedding + layers) + patches // 4 * mergers
    )


@pytest.mark.parametrize("instructions", [["pick up the cup"], ["pick up the cup", "open the drawer"]])
def test_as_the_model_multiplies(instructions: list[str]) -> None:
    model = make("small", device="cpu", dtype=torch.float32, kernel="dense")
    work = Workload(model, rolled_clip(count=21, fps=2.0), instructions, load_protocol("paper", num_prefixes=6))
    ours = flops.of_layout(model.model.config, work.layout)
    with torch.inference_mode(), Products() as products:
        work.ours()
    assert products.operations == ours.total


@pytest.mark.parametrize(("arch", "giga_per_token"), [("qwen3-vl-8b", 13.9), ("qwen3-vl-30b-a3b", 5.5)])
def test_of_the_released_checkpoints(arch: str, giga_per_token: float) -> None:
    text, vision = ARCHITECTURES[arch]
    assert flops.of_decoder(Sizes(**text), 1, 0) / 1e9 == pytest.approx(giga_per_token, rel=0.02)
    per_patch = flops.of_vision(Sizes(**vision, out_hidden_size=text["hidden_size"]), 1, 256) / 256
    assert per_patch / 1e9 == pytest.approx(0.94, rel=0.05)
