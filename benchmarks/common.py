"""What all benchmarks share: random checkpoints of the real architecture, clocks, and a word on the machine."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
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

    A mixture of experts where `text` names `num_experts`.
    """
    torch.manual_seed(0)
    family = "Qwen3VLMoe" if "num_experts" in text else "Qwen3VL"
    half = text["head_dim"] // 2
    side = half * 10 // 32
    sections = {"rope_type": "default", "mrope_section": [half - 2 * side, side, side], "mrope_interleaved": True}
    if int(transformers.__version__.split(".")[0]) < 5:
        rope: dict[str, Any] = {"rope_theta": 5e6, "rope_scaling": sections}
    else:
        rope = {"rope_parameters": {**sections, "rope_theta": 5e6}}
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
    ways: dict[str, Callable[[], Any]], repeats: int, *, budget: float = math.inf
) -> dict[str, list[float]]:
    """Seconds of each way, taken in turn so that a slow minute of the machine hits all alike.

    `repeats` times after a warm-up; fewer, but 3 at least, where all would take more than `budget` seconds.
    """
    start = time.perf_counter()
    for way in ways.values():
        timed(way)
    once = time.perf_counter() - start
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(max(min(3, repeats), min(repeats, int(budget / once) if budget < math.inf else repeats))):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    return seconds


def timed(way: Callable[[], Any]) -> float:
    """Seconds until all that the call has started is done."""
    synchronize()
    start = time.perf_counter()
    way()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Wait for the GPU, where there is one in use."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


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


def gpu() -> dict[str, Any] | None:
    """Name, memory, clocks and driver of the GPU in use; None without one."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }
    if shutil.which("nvidia-smi"):
        asked = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu,driver_version"
        command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", "--id=0"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
        found |= dict(zip(asked.split(","), said.split(", "), strict=False))
    return found


def machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {"cpu": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), **software()}
