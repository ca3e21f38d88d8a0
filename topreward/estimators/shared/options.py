"""How a checkpoint is asked for, whichever estimator reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import torch

    from topreward.qwen.attention import Kernel
    from topreward.qwen.loading import Quantization


class LoadOptions(TypedDict, total=False):
    """The keywords of `TOPReward.from_pretrained`, for those who pass them on."""

    revision: str | None
    device: str | torch.device | dict[str, Any] | None
    dtype: str | torch.dtype | None
    quantization: Quantization
    attn_implementation: str | None
    adapter: str | None
    branch_kernel: Kernel | None
    memory_limit: int | None
