"""qwen-vl-utils and the stock processor, the off-the-shelf twin: the same ids, the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from tokenizers import Tokenizer

from checkpoints import GOLDENS
from clips import rolled_frames
from stock import processor, stock_inputs
from topreward.qwen import pixels
from topreward.qwen.layout import prompt_text

TOKENIZER = GOLDENS / "tokenizer.json"
OUTER_PAIR = Version(transformers.__version__) >= Version("5.10")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_ids_differ_by_the_outer_pair_at_most(count: int) -> None:
    frames, indices = rolled_frames(0, count, 60, 80, 3), np.arange(count) * 15
    question = "The above video shows a robot: pick up the cup. The answer is:"
    stock = stock_inputs(frames, indices, 30.0, question, TOKENIZER)["input_ids"][0].tolist()
    text = prompt_text("<|im_start|>user\n", indices / 30.0, (8, 8), question)
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    ours = tokenizer.encode(text, add_special_tokens=False).ids
    if OUTER_PAIR:
        start, end = 268, 269
        first = len(tokenizer.encode("<|im_start|>user\n").ids)  # before the first timestamp
        last = len(ours) - ours[::-1].index(end)
        ours = [*ours[:first], start, *ours[first:last], end, *ours[last:]]
    assert stock == ours


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(128, 160), (480, 640), (90, 50)])
def test_paper_pixels_are_the_stock_processors(size: tuple[int, int]) -> None:
    frames = rolled_frames(1, 4, *size, 3)
    small = [Image.fromarray(f).resize((244, 244), Image.Resampling.BICUBIC) for f in frames]
    video = torch.from_numpy(np.stack([np.asarray(f) for f in small])).permute(0, 3, 1, 2)
    stock = processor(TOKENIZER).video_processor(videos=[video], do_sample_frames=False, return_tensors="pt")
    ours = pixels.to_patches(pixels.square_pixels(frames))
    torch.testing.assert_close(ours, stock["pixel_values_videos"], atol=1e-5, rtol=0)
    assert stock["video_grid_thw"].tolist() == [[2, 16, 16]]
