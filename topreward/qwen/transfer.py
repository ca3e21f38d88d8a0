"""Small arrays on their way to the device, without making it wait.

In go numpy arrays of ids, positions and indices; out come the same on the device. An ordinary copy to a GPU waits
until all work before it is done, and so takes from the host the lead in which it launches what comes next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on `device`; to a GPU through pinned memory, behind the work already launched.

    On the CPU the tensor shares the array's memory.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
