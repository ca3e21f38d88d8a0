"""One linear layer of Qwen3.5-9B, cut where prefixes leave the trunk: torch's rule beside flash-linear-attention's.

In go a layout and a device; out come seconds of one layer's part in each pass, of each rule that is there, beside the
library's own layer over the whole trunk, and how far the rules differ. A 9B has 24 such layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch import Tensor

from common import interleaved, median
from topreward.qwen import delta
from topreward.qwen.layout import Passes

# The text model's defaults are the 9B's.
SMALL = {"hidden_size": 256, "linear_num_key_heads": 2, "linear_num_value_heads": 4}


def measure(layout: Passes, *, device: str, dtype: torch.dtype, small: bool, **often: Any) -> dict[str, Any]:
    """Seconds of one layer, by rule and pass."""
    if not hasattr(transformers, "Qwen3_5ForConditionalGeneration"):
        return {"skipped": f"transformers {transformers.__version__} has no Qwen3.5"}
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

    torch.manual_seed(0)
    config = transformers.Qwen3_5Config(text_config=SMALL if small else {}).text_config
    with torch.device(device):
        layer = Qwen3_5GatedDeltaNet(config, 0).to(dtype).eval()
        trunk = torch.randn(1, len(layout.trunk), config.hidden_size, dtype=dtype)
        branch = torch.randn(1, len(layout.branch), config.hidden_size, dtype=dtype)
    cut = delta.trunk_plan(layout.branches, width=trunk.shape[1])

    def both() -> Tensor:
        seen = delta.mix(layer, cut, trunk)
        on = delta.branch_plan(layout.branches, cut.states, width=branch.shape[1])
        return torch.cat([seen, delta.mix(layer, on, branch)], dim=1)

    ways: dict[str, Callable[[], Any]] = {"library, whole trunk": lambda: layer(hidden_states=trunk)}
    outputs = {}
    here = torch.device(device)
    rules = ["torch"] if delta.rule_name(here) == "torch" else ["torch", delta.rule_name(here)]
    for rule in rules:
        ways[f"{rule}, trunk and branches"] = call = _with(rule, both)
        outputs[rule] = call()
    seconds = interleaved(ways, **often)
    return {
        "rules": rules,
        "tokens": [trunk.shape[1], branch.shape[1]],
        "points": len(cut.points),
        "seconds": seconds,
        "median": {way: median(s) for way, s in seconds.items()},
        "largest_relative_difference": [_difference(outputs["torch"], outputs[rule]) for rule in rules[1:]],
    }


def _with(rule: str, way: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def call() -> Tensor:
        if rule != "torch":
            return way()
        with patch.object(delta, "_flash_rule", lambda: None):
            return way()

    return call


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max() / a.float().abs().max())
