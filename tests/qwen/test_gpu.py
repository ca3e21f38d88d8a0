"""What only a GPU can show. Skipped without one, unless TOPREWARD_REQUIRE_GPU=1 says that there must be one."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import make_checkpoint
from clips import rolled_clip
from topreward.config import load_protocol
from topreward.errors import MemoryLimitError
from topreward.estimators.topreward import TOPReward

if not torch.cuda.is_available():
    if os.environ.get("TOPREWARD_REQUIRE_GPU") == "1":
        raise RuntimeError(f"TOPREWARD_REQUIRE_GPU=1, but torch {torch.__version__} sees no GPU")
    pytest.skip("no GPU", allow_module_level=True)

CLIP = rolled_clip(count=100, height=64, width=96)
TASKS = ["pick up the cup", "open the drawer"]


@pytest.fixture(autouse=True)
def fp32_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's convolutions use TF32 unless told otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kernel", ["dense", "folded", "grouped"])
@pytest.mark.parametrize("protocol", ["paper", "dense"])
def test_fp32_equals_the_slow_twin_and_the_cpu(
    dense_folder: Path, tiny: TOPReward, protocol: str, kernel: Any, attention: str
) -> None:
    estimator = TOPReward.from_pretrained(
        dense_folder, device="cuda", dtype="float32", attn_implementation=attention, branch_kernel=kernel
    )
    fast = estimator.score(CLIP, TASKS, protocol=protocol)
    slow = estimator.score(CLIP, TASKS, protocol=protocol, one_pass=False)
    cpu = tiny.score(CLIP, TASKS, protocol=protocol)
    for f, s, c in zip(fast, slow, cpu, strict=True):
        np.testing.assert_allclose(f.values, s.values, atol=1e-4, rtol=0)
        np.testing.assert_allclose(f.values, c.values, atol=2e-3 if protocol == "paper" else 5e-2, rtol=0)


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="flash_attn is not installed")
def test_flash_attention_prefills_the_trunk(dense_folder: Path) -> None:
    estimator = TOPReward.from_pretrained(
        dense_folder, device="cuda", attn_implementation="flash_attention_2", dtype="bfloat16"
    )
    curve = estimator.score(CLIP, TASKS[0])
    assert curve.provenance["kernels"]["trunk"] == "flash_attention_2"
    full = TOPReward.from_pretrained(dense_folder, device="cuda", dtype="float32").score(CLIP, TASKS[0])
    assert np.abs(curve.values - full.values).max() < 2.0


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_weights_on_the_gpu(tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("bitsandbytes")
    folder = make_checkpoint(tmp_path, intermediate_size=192)
    full = TOPReward.from_pretrained(folder, device="cuda", dtype="bfloat16").score(CLIP, TASKS[0])
    small = TOPReward.from_pretrained(folder, device="cuda", dtype="bfloat16", quantization=kind).score(CLIP, TASKS[0])
    assert 0 < np.abs(full.values - small.values).max() < 12


def test_several_devices_through_accelerate(dense_folder: Path, tiny: TOPReward) -> None:
    devices: dict[str, Any] = {"model.visual": 0, "model.language_model.embed_tokens": 0, "lm_head": 0}
    devices |= {"model.language_model.norm": 0, "model.language_model.rotary_emb": 0}
    devices |= {f"model.language_model.layers.{i}": 0 if i < 2 else "cpu" for i in range(4)}
    estimator = TOPReward.from_pretrained(dense_folder, device=devices, dtype="float32")
    np.testing.assert_allclose(
        estimator.score(CLIP, TASKS[0], protocol="paper").values,
        tiny.score(CLIP, TASKS[0], protocol="paper").values,
        atol=2e-3,
    )


def test_the_estimate_holds_the_measured_peak(dense_folder: Path) -> None:
    estimator = TOPReward.from_pretrained(dense_folder, device="cuda", dtype="float32")
    protocol = load_protocol("dense", num_prefixes=0)
    clip = rolled_clip(count=600, height=128, width=128)
    estimator.score(clip, TASKS[0], protocol=protocol)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    estimator.score(clip, TASKS[0], protocol=protocol)
    peak = torch.cuda.max_memory_allocated() - before
    estimator.memory_limit = int(peak * 0.8)
    with pytest.raises(MemoryLimitError):
        estimator.score(clip, TASKS[0], protocol=protocol)
