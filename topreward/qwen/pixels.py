"""uint8 frames → the patches that Qwen3-VL's vision tower takes.

In go decoded frames; out come normalised patches in torch, on the model's device. One size is chosen per
video and kept for all its prefixes: that is what makes a block the same in every prefix.

`square` does what the paper's code and the stock processor did together, on uint8 on the CPU, bit for bit:
PIL squashes to 244x244, the processor rounds to 256x256 with torch's fixed-point kernel. `keep_aspect`
resizes once, in float, on the model's device.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from topreward.errors import VideoError
from topreward.sampling import TEMPORAL_PATCH
from topreward.types import Clip
from topreward.video.ready import Resize, shown_as

PATCH = 16
MERGE = 2
CELL = PATCH * MERGE
"""px a side that one visual token stands for."""
PATCH_WIDTH = 3 * TEMPORAL_PATCH * PATCH * PATCH
"""Values in one patch: colour x time x height x width."""

SQUARE_PIL = 244
SQUARE = 256
# Beyond this many frames the stock processor makes frames smaller (25 165 824 px a video); we do not.
SQUARE_PARITY_FRAMES = 25_165_824 // (SQUARE * SQUARE)

# Full-size frames turned to float at once: in float a frame is four times its bytes.
FLOAT_FRAMES = 16

Size = tuple[int, int]


def square_size() -> Size:
    """(height, width) px of the paper's frames."""
    return SQUARE, SQUARE


def aspect_size(height: int, width: int, frame_pixels: int) -> Size:
    """The size that shows most of a frame: multiples of 32, at most `frame_pixels`, never enlarged.

    The largest area, each size's area discounted by twice the percentage that it distorts the aspect ratio.
    Raises VideoError for frames so long and thin that not one row of tokens fits.
    """
    tallest = max(CELL, round(height / CELL) * CELL)
    widest = max(CELL, round(width / CELL) * CELL)
    best: tuple[float, Size] | None = None
    for h in range(CELL, tallest + 1, CELL):
        exact = h * width / height / CELL
        for w in {min(widest, max(CELL, cells * CELL)) for cells in (math.floor(exact), math.ceil(exact))}:
            if h * w <= frame_pixels:
                distortion = abs(math.log((w / h) / (width / height)))
                best = max(best or (0.0, (0, 0)), (h * w * math.exp(-2 * distortion), (h, w)))
    if best is None:
        raise VideoError(f"frames of {height}x{width} px do not fit {frame_pixels} px at one row of tokens")
    return best[1]


def token_grid(size: Size) -> Size:
    """(height, width) px → visual tokens per block."""
    return size[0] // CELL, size[1] // CELL


def resize_of(clip: Clip, how: Literal["square", "keep_aspect"], frame_pixels: int) -> Resize:
    """How a clip's frames are resized; one way for all its prefixes. Raises VideoError as `aspect_size`."""
    size = square_size() if how == "square" else aspect_size(clip.height, clip.width, frame_pixels)
    return Resize(how, *size)


def frames_of(clip: Clip, indices: NDArray[np.int64], resize: Resize) -> NDArray[np.uint8]:
    """(N, h, w, 3): resized where somebody has done so ahead, else as decoded. For `shown`. Raises VideoError."""
    return (shown_as(clip, resize) or clip.frames)(indices)


def shown(clip: Clip, frames: NDArray[np.uint8], resize: Resize, device: torch.device | str = "cpu") -> Tensor:
    """What `frames_of` gave of a clip → (N, 3, height, width) uint8 on `device`."""
    if shown_as(clip, resize) is not None:
        return torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2)
    return resized(frames, resize, device)


def resized(frames: NDArray[np.uint8], resize: Resize, device: torch.device | str = "cpu") -> Tensor:
    """(N, H, W, 3) frames as decoded → (N, 3, height, width) uint8 on `device`."""
    if resize.how == "square":
        return square_pixels(frames, device)
    return aspect_pixels(frames, (resize.height, resize.width), device)


def square_pixels(frames: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """The paper's pixels: (N, H, W, 3) uint8 → (N, 3, 256, 256) uint8 on `device`."""
    small = np.stack(
        [np.asarray(Image.fromarray(f).resize((SQUARE_PIL, SQUARE_PIL), Image.Resampling.BICUBIC)) for f in frames]
    )
    pixels = torch.from_numpy(small).permute(0, 3, 1, 2).contiguous()
    # On uint8 on the CPU, as torchvision does it: a float resize changes 8 to 23 % of the values.
    return interpolate(pixels, size=(SQUARE, SQUARE), mode="bicubic", antialias=True).to(device)


def aspect_pixels(frames: NDArray[np.uint8], size: Size, device: torch.device | str = "cpu") -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, height, width) uint8, resized on `device` to `size`."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2)
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    out = pixels.new_empty(len(pixels), 3, *size)
    for start in range(0, len(pixels), FLOAT_FRAMES):
        part = pixels[start : start + FLOAT_FRAMES].float()
        resized = interpolate(part, size=size, mode="bicubic", antialias=True)
        # Bicubic overshoots; whole levels, as a stored image would have them.
        out[start : start + FLOAT_FRAMES] = resized.round_().clamp_(0, 255).to(torch.uint8)
    return out


def to_patches(pixels: Tensor) -> Tensor:
    """(N, 3, H, W) in 0..255, N even → (N/2 · H/16 · W/16, 1536) float32 in -1..1.

    In the order the vision tower merges them: the four patches of one visual token lie side by side, each
    patch as the convolution reads it (colour, time, y, x).
    """
    count, colours, height, width = pixels.shape
    scaled = pixels.to(torch.float32, copy=True).sub_(127.5).div_(127.5)
    rows, columns = height // CELL, width // CELL
    split = scaled.reshape(count // TEMPORAL_PATCH, TEMPORAL_PATCH, colours, rows, MERGE, PATCH, columns, MERGE, PATCH)
    ordered = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return ordered.reshape(-1, PATCH_WIDTH)
