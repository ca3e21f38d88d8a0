"""Sizes and patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clips import rolled_frames
from topreward.errors import VideoError
from topreward.qwen import pixels


@pytest.mark.parametrize(
    ("frame", "budget", "size"),
    [
        ((480, 640), 65536, (224, 288)),
        ((480, 640), 480 * 640, (480, 640)),
        ((256, 256), 65536, (256, 256)),
        ((720, 1280), 65536, (192, 320)),
        ((64, 64), 65536, (64, 64)),  # never enlarged
        ((10, 10), 65536, (32, 32)),  # but one token at least
        ((1080, 200), 65536, (512, 96)),
    ],
)
def test_aspect_sizes(frame: tuple[int, int], budget: int, size: tuple[int, int]) -> None:
    assert pixels.aspect_size(*frame, budget) == size


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1024, 300_000))
def test_aspect_sizes_fit(height: int, width: int, budget: int) -> None:
    try:
        h, w = pixels.aspect_size(height, width, budget)
    except VideoError:
        assert max(height, width) / min(height, width) > 2
        return
    assert h % 32 == w % 32 == 0
    assert h * w <= budget
    assert h <= max(32, height + 16)
    assert w <= max(32, width + 16)


def test_patches_hold_each_pixel_where_the_tower_reads_it() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)
    patches = pixels.to_patches(pixels.aspect_pixels(frames, (64, 96)))
    assert patches.shape == (2 * 4 * 6, 1536)
    # block 1, visual token (1, 2), its patch (0, 1): rows 32..47, columns 80..95 of frames 2 and 3
    row = 1 * 24 + (1 * 3 + 2) * 4 + 1
    expected = torch.from_numpy(frames[2:4, 32:48, 80:96]).permute(3, 0, 1, 2).float()
    torch.testing.assert_close(patches[row].view(3, 2, 16, 16), expected / 127.5 - 1)


def test_aspect_resize_agrees_with_pil_to_two_levels() -> None:
    smooth = np.clip(np.cumsum(np.random.default_rng(0).normal(0, 4, (2, 120, 200, 3)), axis=2) + 128, 0, 255)
    frames = smooth.astype(np.uint8)
    ours = pixels.aspect_pixels(frames, (64, 96)).permute(0, 2, 3, 1).numpy().astype(int)
    pil = np.stack([np.asarray(Image.fromarray(f).resize((96, 64), Image.Resampling.BICUBIC)) for f in frames])
    assert np.abs(ours - pil).max() <= 2
    assert np.abs(ours - pil).mean() < 0.5


def test_a_frame_gets_the_same_patches_alone_and_among_others() -> None:
    frames = rolled_frames(0, 6, 100, 140, 5)
    for make in (pixels.square_pixels, lambda f: pixels.aspect_pixels(f, (64, 96))):
        torch.testing.assert_close(pixels.to_patches(make(frames))[-1], pixels.to_patches(make(frames[4:]))[-1])


def test_a_hair_thin_video_is_refused() -> None:
    with pytest.raises(VideoError, match="4x3000"):
        pixels.aspect_size(4, 3000, 65536)
