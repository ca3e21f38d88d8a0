"""Prompts with still images: equal to the stock processor's, to the tokenizer's and to the model's own positions."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer

from checkpoints import GOLDENS
from clips import rolled_frames
from stock import processor
from topreward.errors import PromptError
from topreward.estimators.gvl import prompts as gvl_prompts
from topreward.estimators.gvl.protocol import load_gvl_protocol
from topreward.estimators.gvl.showing import still_patches
from topreward.estimators.topreward import TOPReward
from topreward.qwen import pixels
from topreward.qwen.image_layout import ImagePrompt, lay_out_images
from topreward.qwen.layout import VisionTokens

FILE = GOLDENS / "tokenizer.json"
TOKENIZER = Tokenizer.from_file(str(FILE))
IMAGE = VisionTokens(start=268, end=269, pad=270)
REAL = "TOPREWARD_QWEN_TOKENIZER"
# Qwen's chat template, for a user's turn of texts and images.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def gvl_layout(name: str, grids: list[tuple[int, int]], examples: list[list[int]]) -> ImagePrompt:
    frames = len(grids) - 1 - sum(map(len, examples))
    texts = gvl_prompts.texts(load_gvl_protocol(name).wording, "pick up the cup", examples, frames)
    return lay_out_images(encode, IMAGE, texts=texts, grids=grids)


def stock_inputs(prompt: ImagePrompt, images: list[Image.Image]) -> Any:
    """What the stock processor makes of the same texts and images."""
    texts = [*prompt.texts]
    texts[0] = texts[0].removeprefix("<|im_start|>user\n")
    texts[-1] = texts[-1].removesuffix("<|im_end|>\n<|im_start|>assistant\n")
    content: list[dict[str, Any]] = []
    for text, image in zip(texts, [*images, None], strict=True):
        content += [{"type": "text", "text": text}] + ([{"type": "image", "image": image}] if image else [])
    messages = [{"role": "user", "content": content}]
    stock = processor(FILE)
    text = stock.apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True)
    return stock(text=[text], images=images, return_tensors="pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gvl", "gvl-paper"])
@pytest.mark.parametrize("examples", [[], [[0, 100], [50]]], ids=["zero-shot", "two-shot"])
def test_ids_are_the_stock_processors(name: str, examples: list[list[int]]) -> None:
    grids = [(2, 3), (3, 2), (2, 2), (4, 2), (2, 3), (2, 3)]
    prompt = gvl_layout(name, grids, examples)
    images = [Image.new("RGB", (32 * w, 32 * h), (i, 99, 0)) for i, (h, w) in enumerate(grids)]
    stock = stock_inputs(prompt, images)
    assert prompt.tokens.ids.tolist() == stock["input_ids"][0].tolist()
    assert stock["image_grid_thw"].tolist() == [[1, 2 * h, 2 * w] for h, w in grids]
    assert int(prompt.tokens.visual.sum()) == prompt.visual_tokens


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(128, 160), (480, 640)])
def test_square_images_are_the_stock_processors(size: tuple[int, int]) -> None:
    frames = rolled_frames(1, 3, *size, 5)
    small = [Image.fromarray(f).resize((244, 244), Image.Resampling.BICUBIC) for f in frames]
    # As a checkpoint's preprocessor_config.json has it; 5.x calls the fast class plainly.
    cls = getattr(transformers, "Qwen2VLImageProcessorFast", transformers.Qwen2VLImageProcessor)
    size_limits = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    stock_processor = cls(patch_size=16, size=size_limits, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    stock = stock_processor(images=small, return_tensors="pt")
    ours = still_patches(pixels.square_pixels(frames))
    torch.testing.assert_close(ours, stock["pixel_values"], atol=1e-5, rtol=0)
    assert stock["image_grid_thw"].tolist() == [[1, 16, 16]] * 3


@pytest.mark.parametrize("grids", [[(2, 3)], [(1, 1), (4, 2), (2, 4)]])
def test_positions_are_the_models_own(tiny: TOPReward, grids: list[tuple[int, int]]) -> None:
    texts = ["look: ", *["and at "] * (len(grids) - 1), "what is it?"]
    prompt = lay_out_images(encode, IMAGE, texts=texts, grids=grids)
    core: Any = tiny.model.core
    ids = torch.from_numpy(prompt.tokens.ids)[None]
    arguments = {"image_grid_thw": torch.tensor([[1, 2 * h, 2 * w] for h, w in grids])}
    if "mm_token_type_ids" in inspect.signature(core.get_rope_index).parameters:
        arguments["mm_token_type_ids"] = (ids == IMAGE.pad).int()
    expected, delta = core.get_rope_index(ids, **arguments)
    np.testing.assert_array_equal(prompt.tokens.positions, expected[:, 0].numpy())
    assert prompt.next_position == len(prompt.tokens) + int(delta)


@given(
    texts=st.lists(st.text(alphabet="ab :.\n%", max_size=8), min_size=1, max_size=5),
    last=st.text(alphabet="ab :.\n%", min_size=1, max_size=8),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
@settings(max_examples=100, deadline=None)
def test_the_parts_are_the_whole_in_one_tokenizer_call(texts: list[str], last: str, grid: tuple[int, int]) -> None:
    prompt = lay_out_images(encode, IMAGE, texts=[*texts, last], grids=[grid] * len(texts))
    assert prompt.tokens.ids.tolist() == encode(prompt.text)
    assert prompt.tokens.positions.shape == (3, len(prompt.tokens))


def test_texts_and_images_must_fit_together() -> None:
    for texts in (["a"], ["a", ""], ["a", "b", "c"]):
        with pytest.raises(PromptError, match=f"{len(texts)} texts around 1 images"):
            lay_out_images(encode, IMAGE, texts=texts, grids=[(1, 1)])


@pytest.mark.skipif(REAL not in os.environ, reason=f"set {REAL} to a Qwen3-VL tokenizer.json or its folder")
@pytest.mark.parametrize("name", ["gvl", "gvl-paper", "gvl-rerun"])
def test_whole_prompts_under_the_real_tokenizer(name: str) -> None:
    path = Path(os.environ[REAL])
    real = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
    wording = load_gvl_protocol("gvl", wording=name).wording
    for instruction in ("pick up the cup", "把杯子放到盘子上", " open  it "):
        texts = gvl_prompts.texts(wording, instruction, [[0, 100]], 3)
        prompt = lay_out_images(
            lambda text: real.encode(text, add_special_tokens=False).ids,
            VisionTokens(start=151652, end=151653, pad=151655),
            texts=texts,
            grids=[(2, 2)] * (len(texts) - 1),
        )
        assert prompt.tokens.ids.tolist() == real.encode(prompt.text, add_special_tokens=False).ids
