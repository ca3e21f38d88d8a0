"""Qwen3.5 and 3.6 in one pass against the model's own plain forward per prefix, and mistakes that must show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clips import rolled_clip
from hybrids import needs_hybrids
from topreward.config import load_protocol
from topreward.errors import MemoryLimitError, ModelError, PromptError
from topreward.estimators.gvl import GVL
from topreward.estimators.topreward import one_pass
from topreward.estimators.topreward.call import Call
from topreward.estimators.topreward.estimator import TOPReward
from topreward.estimators.topreward.one_pass import in_batches
from topreward.estimators.topreward.slow_twin import prefix_by_prefix
from topreward.qwen.delta import State, States, branch_plan
from topreward.qwen.layout import Passes
from topreward.qwen.memory import estimate_bytes
from topreward.qwen.model import Features, QwenVL
from topreward.types import Clip, Episode

pytestmark = needs_hybrids

ONE = "pick up the cup"
THREE = ["pick up the cup", "pick up the red block", "Open it."]
TOLERANCE = 1e-4
SETUPS = ["hybrid sdpa grouped", "hybrid sdpa folded", "hybrid eager dense", "hybrid_moe sdpa dense"]
GRIDS = {"3x3": (96, 96), "8x8": (256, 256), "4x5": (128, 160)}


@pytest.fixture(autouse=True)
def _cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens are worth several groups of the folded kernel too: else no test would cut."""
    monkeypatch.setattr("topreward.qwen.attention.folded_groups", lambda tokens: 3)


@pytest.fixture(scope="module", params=SETUPS)
def estimator(request: pytest.FixtureRequest) -> TOPReward:
    kind, attention, kernel = request.param.split()
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    return TOPReward.from_pretrained(folder, device="cpu", attn_implementation=attention, branch_kernel=kernel)


@pytest.fixture(scope="module")
def hybrid(hybrid_folder: Path) -> TOPReward:
    return TOPReward.from_pretrained(hybrid_folder, device="cpu")


def assert_same(estimator: TOPReward, clip: Clip, instructions: list[str], protocol: Any) -> None:
    fast = estimator.score(clip, instructions, protocol=protocol)
    slow = estimator.score(clip, instructions, protocol=protocol, one_pass=False)
    for f, s in zip(fast, slow, strict=True):
        assert np.ptp(s.values) > 0.1 or len(s) == 1, "a constant curve would hide a mistake"
        np.testing.assert_allclose(f.log_prob_true, s.log_prob_true, atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(f.log_prob_false, s.log_prob_false, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("instructions", [[ONE], THREE], ids=["one", "three"])
@pytest.mark.parametrize(("protocol", "grid"), [("paper", "8x8"), *(("dense", grid) for grid in GRIDS)])
def test_equals_the_slow_twin(estimator: TOPReward, grid: str, protocol: str, instructions: list[str]) -> None:
    height, width = GRIDS[grid]
    clip = rolled_clip(count=100, height=height, width=width)  # 7 sampled frames: odd and even prefixes, an odd end
    assert Call(estimator.model, clip, [ONE], load_protocol(protocol)).grid == tuple(map(int, grid.split("x")))
    assert_same(estimator, clip, instructions, load_protocol(protocol, num_prefixes=5))


@pytest.mark.parametrize("chat_template", [False, True])
def test_every_frame_a_prefix(estimator: TOPReward, chat_template: bool) -> None:
    clip = rolled_clip(count=9, height=48, width=64, fps=3.0)
    how = load_protocol("paper", num_prefixes=0, sampling_fps=3.0, chat_template=chat_template)
    assert_same(estimator, clip, THREE, how)


@pytest.mark.parametrize("kind", ["hybrid", "hybrid_moe"])
def test_sixty_prefixes(kind: str, request: pytest.FixtureRequest) -> None:
    estimator = TOPReward.from_pretrained(request.getfixturevalue(f"{kind}_folder"), device="cpu")
    clip = rolled_clip(count=120, height=96, width=96, fps=2.0)
    curve = estimator.score(clip, ONE, protocol=load_protocol("dense", num_prefixes=0))
    assert len(curve) == 60
    assert_same(estimator, clip, [ONE], load_protocol("dense", num_prefixes=0))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("protocol", ["paper", "dense"])
@pytest.mark.parametrize("instructions", [[ONE], THREE], ids=["one", "three"])
def test_the_shortest_clips(estimator: TOPReward, protocol: str, count: int, instructions: list[str]) -> None:
    assert_same(estimator, rolled_clip(count=count, height=40, width=70, fps=2.0), instructions, protocol)


@pytest.mark.parametrize("protocol", ["paper", "dense"])
@pytest.mark.parametrize("tasks", [THREE[:1], THREE], ids=["one", "three"])
def test_packed_clips_of_unequal_length(estimator: TOPReward, protocol: str, tasks: list[str]) -> None:
    sizes = [(64, 96), (96, 64), (64, 96), (48, 48), (64, 96)]
    clips = [
        rolled_clip(seed=i, count=count, height=h, width=w, fps=2.0)
        for i, (count, (h, w)) in enumerate(zip([7, 1, 4, 5, 2], sizes, strict=True))
    ]
    calls = [Call(estimator.model, clip, tasks, load_protocol(protocol, num_prefixes=4)) for clip in clips]
    together = list(in_batches(calls, estimator.model, batch_size=5))
    assert [packed for _, _, packed in together] == [5] * 5
    for call, (_, ours, _) in zip(calls, together, strict=True):
        np.testing.assert_allclose(ours, prefix_by_prefix(call), atol=TOLERANCE, rtol=0)


# -- in parts ------------------------------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every pass through the decoder."""
    seen: list[int] = []
    decode = QwenVL.decode

    def counting(self: QwenVL, tokens: Any, *args: Any, **options: Any) -> Any:
        seen.append(len(tokens))
        return decode(self, tokens, *args, **options)

    monkeypatch.setattr(QwenVL, "decode", counting)
    return seen


@pytest.mark.parametrize("points", [1, 2, 3])
@pytest.mark.parametrize("protocol", ["paper", "dense"])
def test_branch_points_that_take_turns_change_nothing(
    estimator: TOPReward, passes: list[int], monkeypatch: pytest.MonkeyPatch, points: int, protocol: str
) -> None:
    clip = rolled_clip(count=14, height=64, width=96, fps=2.0)
    how = load_protocol(protocol, num_prefixes=0)
    whole = estimator.score(clip, THREE, protocol=how)
    assert len(passes) == 2, "want one trunk pass and one branch pass"
    passes.clear()
    monkeypatch.setattr(one_pass, "_points_at_once", lambda call, limit: points)
    parts = estimator.score(clip, THREE, protocol=how)
    # 14 frames: branch points after 1 … 7 blocks; the paper's first prefix, of one frame, has none and joins them
    assert len(passes) == 2 * -(-7 // points)
    assert sum(passes) == parts[0].provenance["tokens"]["trunk"] + parts[0].provenance["tokens"]["branch"]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=TOLERANCE, rtol=0)


def test_chunks_of_branches_change_nothing(
    estimator: TOPReward, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = rolled_clip(count=120, height=64, width=64)
    how = load_protocol("paper", num_prefixes=0)
    whole = estimator.score(clip, THREE, protocol=how)
    passes.clear()
    monkeypatch.setattr("topreward.qwen.memory.CHUNK_TOKENS", 1)
    monkeypatch.setattr("topreward.qwen.memory.MIN_CHUNK", 1)
    monkeypatch.setattr("topreward.qwen.memory.MASK_ELEMENTS", 2**17)
    chunked = estimator.score(clip, THREE, protocol=how)
    assert len(passes) > 3, "the branch pass was not cut"
    for a, b in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=TOLERANCE, rtol=0)


def test_memory_that_is_short_makes_parts_and_then_an_error(
    hybrid: TOPReward, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = rolled_clip(count=40, height=64, width=64, fps=2.0)
    how = load_protocol("dense", num_prefixes=0)
    call = Call(hybrid.model, clip, [ONE], how)

    def needed(points: int | None) -> int:
        return estimate_bytes(hybrid.model.model, one_pass._load(call, 40, points), block_patches=4 * call.cells)

    # The states of so small a model are nothing beside the rest: let each take what a real one's do.
    real = one_pass.estimate_bytes
    each = 50 * 2**20

    def heavy(model: Any, load: Any, **options: Any) -> int:
        at_once = load.points if load.points_at_once is None else min(load.points, load.points_at_once + 1)
        return int(real(model, load, **options)) + each * at_once

    monkeypatch.setattr(one_pass, "estimate_bytes", heavy)
    plenty = hybrid.score(clip, ONE, protocol=how)
    assert len(passes) == 2
    for points in (7, 1):
        passes.clear()
        limited = TOPReward(hybrid.model, memory_limit=int((needed(points) + each * (points + 1.5)) / 0.9))
        np.testing.assert_allclose(limited.score(clip, ONE, protocol=how).values, plenty.values, atol=TOLERANCE, rtol=0)
        assert len(passes) == 2 * -(-20 // points)
    with pytest.raises(MemoryLimitError, match=r"40 sampled frames need .*; .* fits"):
        TOPReward(hybrid.model, memory_limit=int((needed(1) + each) / 0.9)).score(clip, ONE, protocol=how)


# -- mistakes that must show ---------------------------------------------------------------------------


def forgotten(states: States) -> States:
    return {
        layer: {p: State(s.inputs, torch.zeros_like(s.memory)) for p, s in points.items()}
        for layer, points in states.items()
    }


def unconvolved(states: States) -> States:
    return {
        layer: {p: State(torch.zeros_like(s.inputs), s.memory) for p, s in points.items()}
        for layer, points in states.items()
    }


def shifted(states: States) -> States:
    return {
        layer: dict(zip(points, [next(iter(points.values())), *list(points.values())[:-1]], strict=True))
        for layer, points in states.items()
    }


def moved(layout: Passes, odd: Features) -> tuple[Passes, Features]:
    positions = layout.branch.positions + 1
    return replace(layout, branch=replace(layout.branch, positions=positions)), odd


def exchanged(layout: Passes, odd: Features) -> tuple[Passes, Features]:
    return layout, Features(odd.embeds.roll(64, 0), odd.deepstack)


MISTAKES: dict[str, tuple[Callable[..., Any] | None, Callable[..., Any] | None]] = {
    "recurrent state lost": (forgotten, None),
    "convolution state lost": (unconvolved, None),
    "states shifted by one stop": (shifted, None),
    "wrong odd block": (None, exchanged),
    "positions moved by one": (None, moved),
}


@pytest.mark.parametrize("kind", ["hybrid", "hybrid_moe"])
@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_each_mistake_shows(
    kind: str, mistake: str | None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = TOPReward.from_pretrained(request.getfixturevalue(f"{kind}_folder"), device="cpu")
    clip = rolled_clip(count=100)
    how = load_protocol("paper", num_prefixes=7)
    slow = estimator.score(clip, ONE, protocol=how, one_pass=False).values
    if mistake is not None:
        wrong_states, wrong_passes = MISTAKES[mistake]
        if wrong_states is not None:
            monkeypatch.setattr(
                "topreward.qwen.model.branch_plan",
                lambda branches, states, **options: branch_plan(branches, wrong_states(states), **options),
            )
        if wrong_passes is not None:
            ask = QwenVL.ask

            def wrong(self: QwenVL, layout: Any, trunk: Any, odd: Any, **options: Any) -> Any:
                layout, odd = wrong_passes(layout, odd)
                return ask(self, layout, trunk, odd, **options)

            monkeypatch.setattr(QwenVL, "ask", wrong)
    error = np.abs(estimator.score(clip, ONE, protocol=how).values - slow).max()
    assert error <= TOLERANCE if mistake is None else error >= 100 * TOLERANCE


# -- what is asked, and what is refused ----------------------------------------------------------------


def test_a_thought_is_closed_before_the_answer_is_read(hybrid: TOPReward) -> None:
    clip = rolled_clip(count=5)
    chat = load_protocol("paper", chat_template=True)
    call = Call(hybrid.model, clip, [ONE], chat)
    assert call.questions()[0][0].endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert hybrid.score(clip, ONE, protocol=chat).provenance["thinking"] == "closed"
    plain = Call(hybrid.model, clip, [ONE], load_protocol("paper"))
    assert plain.questions()[0][0].endswith("The answer is:")
    assert "thinking" not in hybrid.score(clip, ONE, protocol="paper").provenance


def test_a_thought_that_stays_open_is_refused(hybrid: TOPReward) -> None:
    wording = load_protocol("paper").wording.model_dump() | {"closed_thinking": ""}
    with pytest.raises(PromptError, match="opens a thought, so the next token is no answer"):
        hybrid.score(rolled_clip(count=5), ONE, protocol=load_protocol("paper", wording=wording, chat_template=True))
    hybrid.score(rolled_clip(count=5), ONE, protocol=load_protocol("paper", wording=wording))
    own = wording | {"chat_closing": "<|im_end|>\n<|im_start|>assistant\n<think>\nNo.\n</think>\n\n"}
    call = Call(hybrid.model, rolled_clip(count=5), [ONE], load_protocol("paper", wording=own, chat_template=True))
    assert call.questions()[0][0].count("<think>") == 1


def test_what_is_written_token_by_token_is_refused(hybrid: TOPReward) -> None:
    with pytest.raises(ModelError, match=r"descriptions cannot be written by .* linear layers .* \(description: none"):
        hybrid.score(rolled_clip(count=5), ONE, protocol=load_protocol("paper", description="once"))
    with pytest.raises(
        ModelError, match=r"GVL's percentages cannot be written by .* take a Qwen3-VL .* \(--estimators"
    ):
        GVL.sharing(hybrid)


def test_the_curve_says_what_is_known_and_how_it_was_made(hybrid: TOPReward) -> None:
    curve = hybrid.score(rolled_clip(count=20), ONE, protocol="paper")
    assert "the only published VOCs are bad" in curve.notes[0]
    assert curve.provenance["kernels"] == {
        "vision": "topreward blocks",
        "trunk": "sdpa",
        "branch": "topreward grouped",
        "delta rule": "torch",
    }
    assert curve.provenance["model_type"] == "qwen3_5"
    [again] = hybrid.score_many([Episode("e", ONE, lambda: rolled_clip(count=20))], protocol="paper")
    np.testing.assert_array_equal(curve.values, again.values)
