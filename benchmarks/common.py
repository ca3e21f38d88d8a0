"""What all benchmarks share: random checkpoints of the real architecture, clocks, and a word on the machine."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from topreward.provenance import software
from topreward.qwen.loading import Checkpoint
from topreward.qwen.model import QwenVL

TOKENIZER = Path(__file__).parent / "tokenizer.json"
REAL_VOCABULARY = 151_936
TOKEN_IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


def random_model(text: dict[str, Any], vision: dict[str, Any], *, attn_implementation: str = "sdpa") -> QwenVL:
    """A dense Qwen3-VL with random fp32 weights on the CPU; time and memory do not depend on the values."""
    torch.manual_seed(0)
    half = text["head_dim"] // 2
    side = half * 10 // 32
    sections = {"rope_type": "default", "mrope_section": [half - 2 * side, side, side], "mrope_interleaved": True}
    if int(transformers.__version__.split(".")[0]) < 5:
        rope: dict[str, Any] = {"rope_theta": 5e6, "rope_scaling": sections}
    else:
        rope = {"rope_parameters": {**sections, "rope_theta": 5e6}}
    config = transformers.Qwen3VLConfig(
        text_config={"vocab_size": REAL_VOCABULARY, **text, **rope},
        vision_config={"patch_size": 16, "out_hidden_size": text["hidden_size"], **vision},
        **TOKEN_IDS,
    )
    config._attn_implementation = attn_implementation
    model = transformers.Qwen3VLForConditionalGeneration(config).eval().requires_grad_(False)
    provenance = {"model": "random weights", "model_type": "qwen3_vl", "dtype": "float32"}
    return QwenVL(Checkpoint(model, Tokenizer.from_file(str(TOKENIZER)), provenance))


def interleaved(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, `repeats` times, taken in turn so that a slow minute of the machine hits all alike."""
    for way in ways.values():
        way()  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median(values: list[float]) -> float:
    return float(statistics.median(values))


def peak_rss_over(way: Callable[[], Any]) -> int | None:
    """Bytes by which the resident set rises above its level before the call, at its highest (Linux only)."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier calls freed must not hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except OSError:
        return None
    before = _status("VmRSS")
    way()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {"cpu": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), **software()}
