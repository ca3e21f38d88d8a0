"""The device that a benchmark runs on: which one, how fast it is clocked, and which attention it prefers.

In goes `cpu`, `cuda` or `cuda:N`; everything after `use` happens there.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from common import gpu_in_use

ASKED = (
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "driver_version",
)
PREFERENCES = ("auto", "cudnn", "flash")


def use(device: str) -> None:
    """Make it the current device, and turn TF32 off: figures called fp32 are fp32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device != "cpu":
        torch.cuda.set_device(torch.device("cuda:0" if device == "cuda" else device))


def preferred(attention: str) -> AbstractContextManager[None]:
    """Within it, scaled_dot_product_attention tries this kernel first, and the others where it cannot."""
    others = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    flash, cudnn = SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION
    if attention == "cudnn":
        return sdpa_kernel([cudnn, flash, *others], set_priority=True)
    if attention == "flash":
        return sdpa_kernel([flash, cudnn, *others], set_priority=True)
    if attention == "no-cudnn":
        return sdpa_kernel([flash, *others], set_priority=True)
    return nullcontext()


def let_go() -> None:
    """Of memory that nothing holds any more."""
    gc.collect()
    if gpu_in_use():
        torch.cuda.empty_cache()


def gpu() -> dict[str, Any] | None:
    """Name, memory, clocks and driver of the current GPU; None where none is in use."""
    if not gpu_in_use():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    found: dict[str, Any] = {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }
    return found | clocks()


def clocks() -> dict[str, str]:
    """What nvidia-smi says of the current GPU just now; nothing where it is silent."""
    if not gpu_in_use() or not shutil.which("nvidia-smi"):
        return {}
    number = torch.cuda.current_device()
    uuid = getattr(torch.cuda.get_device_properties(number), "uuid", None)
    # By its uuid where torch knows it: CUDA_VISIBLE_DEVICES counts otherwise than nvidia-smi.
    for name in [f"GPU-{uuid}"] * (uuid is not None) + [str(number)]:
        if said := _asked(name):
            return said
    return {}


def _asked(name: str) -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader", f"--id={name}"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return parsed(said)


def parsed(line: str) -> dict[str, str]:
    """One line of nvidia-smi's answer → field by field; a line of another length is no answer."""
    values = [value.strip() for value in line.strip().split(",")]
    return dict(zip(ASKED, values, strict=True)) if len(values) == len(ASKED) else {}
