"""What all benchmarks share: random checkpoints of the real architecture, clocks, and a word on the machine."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from topreward.provenance import software
from topreward.qwen.attention import Kernel
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


def random_model(
    text: dict[str, Any],
    vision: dict[str, Any],
    *,
    attn_implementation: str = "sdpa",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kernel: Kernel | None = None,
) -> QwenVL:
    """A Qwen3-VL with random weights, made on the device; time and memory do not depend on the values.

    A mixture of experts where `text` names `num_experts`; a Qwen3.5 where it names `linear_num_value_heads`.
    """
    torch.manual_seed(0)
    hybrid = "linear_num_value_heads" in text
    family = ("Qwen3_5" if hybrid else "Qwen3VL") + ("Moe" if "num_experts" in text else "")
    half = text["head_dim"] // (8 if hybrid else 2)  # Qwen3.5 turns a quarter of each head
    side = half * 10 // 32
    sections = {"rope_type": "default", "mrope_section": [half - 2 * side, side, side], "mrope_interleaved": True}
    if int(transformers.__version__.split(".")[0]) < 5:
        rope: dict[str, Any] = {"rope_theta": 5e6, "rope_scaling": sections}
    else:
        share = {"partial_rotary_factor": 0.25} if hybrid else {}
        rope = {"rope_parameters": {**sections, **share, "rope_theta": 5e6}}
    config = getattr(transformers, f"{family}Config")(
        text_config={"vocab_size": REAL_VOCABULARY, **text, **rope},
        vision_config={"patch_size": 16, "out_hidden_size": text["hidden_size"], **vision},
        tie_word_embeddings=text.get("tie_word_embeddings", False),
        **TOKEN_IDS,
    )
    config._attn_implementation = attn_implementation
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    finally:
        torch.set_default_dtype(before)
    kind = {"model": "random weights", "model_type": config.model_type, "dtype": str(dtype).removeprefix("torch.")}
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    return QwenVL(Checkpoint(model.eval().requires_grad_(False), tokenizer, kind), kernel=kernel)


def interleaved(
    ways: dict[str, Callable[[], Any]],
    repeats: int,
    *,
    budget: float = math.inf,
    least: int = 3,
    warm: float | None = None,
) -> dict[str, list[float]]:
    """Seconds of each way, taken in turn so that a slow minute of the machine hits all alike.

    `repeats` times after a warm-up; fewer, but `least` at least, where all would take more than `budget` seconds.
    `warm`: seconds that one round took that was the warm-up already.
    """
    if warm is None:
        start = time.perf_counter()
        for way in ways.values():
            timed(way)
        warm = time.perf_counter() - start
    fit = int(min(repeats, budget / max(warm, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(max(min(least, repeats), fit)):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    return seconds


@dataclass(frozen=True)
class First:
    """What the first call of a way gave: its warm-up, and its memory, in one."""

    value: Any
    seconds: float
    peak_bytes: int | None
    """Beyond what was there before the call."""


def first(way: Callable[[], Any], device: str) -> First:
    """Call it once, for all that need not be repeated."""
    value, seconds = [], []
    peak = peak_memory(lambda: seconds.append(timed(lambda: value.append(way()))), device)
    return First(value[0], seconds[0], peak)


def timed(way: Callable[[], Any]) -> float:
    """Seconds until all that the call has started is done."""
    synchronize()
    start = time.perf_counter()
    way()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Wait for the GPU, where there is one in use."""
    if gpu_in_use():
        torch.cuda.synchronize()


def gpu_in_use() -> bool:
    """Whether anything of this process has run on a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


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


def peak_memory(way: Callable[[], Any], device: str) -> int | None:
    """Most bytes that a call takes beyond what is there before it, on a GPU or of the resident set."""
    if device == "cpu":
        return peak_rss_over(way)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    way()
    synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {"cpu": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), **software()}
