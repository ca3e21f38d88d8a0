"""Tokens and positions: equal to the model's own, equal in every longer prompt, equal to the real tokenizer's."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_token_goldens import INSTRUCTIONS, SECONDS, texts
from tokenizers import Tokenizer

from checkpoints import GOLDENS
from topreward.config import load_wording
from topreward.estimators.topreward import TOPReward, prompts
from topreward.qwen.layout import Layout, Tokens, VisionTokens, lay_out, prompt_text

TOKENIZER = Tokenizer.from_file(str(GOLDENS / "tokenizer.json"))
VISION = VisionTokens(start=268, end=269, pad=271)
OPENING = "<|im_start|>user\n"
REAL = "TOPREWARD_QWEN_TOKENIZER"


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def whole(layout: Layout, prefix: int, question: int = 0) -> Tokens:
    """One prefix's one prompt, put together again from trunk, stem and tail."""
    branch = layout.branches[prefix]
    tail_start = branch.stem_stop if question == 0 else branch.tail_stops[question - 1]
    rows = np.r_[branch.start : branch.stem_stop, tail_start : branch.tail_stops[question]]
    parts = [
        (layout.trunk.ids[: branch.trunk_length], layout.trunk.positions[:, : branch.trunk_length]),
        (layout.branch.ids[rows], layout.branch.positions[:, rows]),
    ]
    ids = np.concatenate([p[0] for p in parts])
    return Tokens(ids, np.concatenate([p[1] for p in parts], axis=1), ids == VISION.pad)


@given(
    count=st.integers(1, 9),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    step=st.floats(0.01, 70),
    questions=st.lists(st.text(alphabet="ab .:", min_size=1, max_size=8), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_every_prefix_is_the_whole_prompt(count: int, grid: tuple[int, int], step: float, questions: list[str]) -> None:
    """Trunk part + stem + tail = one tokenizer call over the whole prompt, for every prefix and question."""
    seconds = np.arange(count) * step
    counts = list(range(1, count + 1))
    layout = lay_out(
        encode, VISION, opening=OPENING, seconds=seconds, grid=grid, counts=counts, questions=[questions] * count
    )
    for prefix, n in enumerate(counts):
        for i, question in enumerate(questions):
            ids = encode(prompt_text(OPENING, seconds[:n], grid, question))
            assert whole(layout, prefix, i).ids.tolist() == ids
            assert layout.scored[prefix, i] == layout.branches[prefix].tail_stops[i] - 1
    assert layout.odd_counts == tuple(counts[::2])
    assert len(layout.trunk) == 0 or layout.trunk.visual.sum() == count // 2 * grid[0] * grid[1]


@pytest.mark.parametrize("grid", [(2, 3), (1, 1), (4, 2)])
@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_positions_are_the_models_own(tiny: TOPReward, count: int, grid: tuple[int, int]) -> None:
    seconds = np.arange(6) * 0.5
    layout = lay_out(
        encode, VISION, opening=OPENING, seconds=seconds, grid=grid, counts=[count], questions=[["is it", "is it not"]]
    )
    core: Any = tiny.model.core
    for question in (0, 1):
        tokens = whole(layout, 0, question)
        ids = torch.from_numpy(tokens.ids)[None]
        arguments = {"video_grid_thw": torch.tensor([[-(-count // 2), 2 * grid[0], 2 * grid[1]]])}
        if "mm_token_type_ids" in inspect.signature(core.get_rope_index).parameters:
            arguments["mm_token_type_ids"] = (ids == VISION.pad).int() * 2
        expected, _ = core.get_rope_index(ids, **arguments)
        np.testing.assert_array_equal(tokens.positions, expected[:, 0].numpy())


def test_the_mask_lets_a_tail_see_its_stem_and_itself() -> None:
    layout = lay_out(
        encode,
        VISION,
        opening=OPENING,
        seconds=np.zeros(3),
        grid=(1, 1),
        counts=[3],
        questions=[["a b", "a c", "a dd"]],
    )
    branch = layout.branches[0]
    mask = branch.mask()
    stem = branch.stem_stop
    starts = [stem, *branch.tail_stops[:-1]]
    for query in range(len(branch)):
        own = next((s for s in reversed(starts) if query >= s), 0)
        expected = [key <= query and (key < stem or key >= own) for key in range(len(branch))]
        assert mask[query].tolist() == expected


def replay(pieces: dict[str, str], golden: list[int]) -> Callable[[str], list[int]]:
    """An `encode` that knows one golden prompt, and gives ids only for texts that fall on its token boundaries."""
    decoder = Tokenizer.from_file(str(GOLDENS / "tokenizer.json")).decoder
    tokens = [pieces[str(i)] for i in golden]

    def encode_golden(text: str) -> list[int]:
        for start in range(len(tokens)):
            for stop in range(start + 1, len(tokens) + 1):
                said = decoder.decode(tokens[start:stop])
                if said == text:
                    return golden[start:stop]
                if not text.startswith(said.rstrip("\ufffd")):
                    break
        raise AssertionError(f"{text!r} does not fall on token boundaries of the golden prompt")

    return encode_golden


@pytest.mark.parametrize("chat_template", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("number", range(len(INSTRUCTIONS)))
def test_golden_ids_of_the_real_tokenizer(number: int, chat_template: bool) -> None:
    goldens = json.loads((GOLDENS / "qwen3_ids.json").read_text())
    golden = goldens["ids"][f"{number} {'chat' if chat_template else 'plain'}"]
    wording = load_wording("topreward")
    question = prompts.question(wording, INSTRUCTIONS[number], chat_template=chat_template)
    vision = VisionTokens(start=151652, end=151653, pad=151656)
    layout = lay_out(
        replay(goldens["pieces"], golden),
        vision,
        opening=wording.opening,
        seconds=SECONDS,
        grid=(1, 2),
        counts=[5],
        questions=[[question]],
    )
    assert np.concatenate([layout.trunk.ids, layout.branch.ids]).tolist() == golden


def test_the_instruction_joins_the_prompt_as_one_string() -> None:
    ids = json.loads((GOLDENS / "qwen3_ids.json").read_text())["ids"]["0 plain"]
    assert ids[ids.index(25, 40) : ids.index(25, 40) + 3] == [25, 3735, 705]  # ":", " pick", " up"


@pytest.mark.skipif(REAL not in os.environ, reason=f"set {REAL} to a Qwen3-VL tokenizer.json or its folder")
def test_goldens_and_every_prefix_under_the_real_tokenizer() -> None:
    path = Path(os.environ[REAL])
    real = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
    goldens = json.loads((GOLDENS / "qwen3_ids.json").read_text())["ids"]
    for name, text in texts().items():
        assert real.encode(text, add_special_tokens=False).ids == goldens[name]
    assert [real.encode(a).ids for a in (" True", " False", "True", "False")] == [[i] for i in goldens["answers"]]
    wording = load_wording("topreward")
    questions = [prompts.question(wording, i) for i in INSTRUCTIONS]
    layout = lay_out(
        lambda text: real.encode(text, add_special_tokens=False).ids,
        VisionTokens(start=151652, end=151653, pad=151656),
        opening=wording.opening,
        seconds=SECONDS,
        grid=(2, 2),
        counts=range(1, 6),
        questions=[questions] * 5,
    )
    for prefix in range(5):
        for i, question in enumerate(questions):
            text = prompt_text(wording.opening, SECONDS[: prefix + 1], (2, 2), question)
            assert whole(layout, prefix, i).ids.tolist() == real.encode(text, add_special_tokens=False).ids
