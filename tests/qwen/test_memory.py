"""The memory estimate: above what a call takes, and not absurdly so."""

from __future__ import annotations

import numpy as np
import pytest

from clips import rolled_clip
from common import peak_rss_over, random_model
from topreward.config import load_protocol
from topreward.errors import MemoryLimitError
from topreward.estimators.topreward import TOPReward
from topreward.qwen.memory import Load, require
from topreward.types import Clip

TEXT = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 151_936}  # fmt: skip
VISION = {"depth": 3, "hidden_size": 128, "intermediate_size": 512, "num_heads": 4, "deepstack_visual_indexes": [0, 1]}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_estimate_covers_the_measured_peak(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = TOPReward(random_model(TEXT, VISION, attn_implementation=attention))
    clip = rolled_clip(count=40, height=256, width=256, fps=2.0)
    protocol = load_protocol("dense", num_prefixes=0)
    asked: list[int] = []

    def remember(needed, frames, limit, **_):  # type: ignore[no-untyped-def]
        asked.append(needed(frames))

    monkeypatch.setattr("topreward.estimators.topreward.one_pass.require", remember)
    estimator.score(clip, "pick up the cup", protocol=protocol)
    peak = peak_rss_over(lambda: estimator.score(clip, "pick up the cup", protocol=protocol))
    if peak is None:
        pytest.skip("this system does not tell the peak of the resident set")
    assert peak > 40e6, "the call is too small to say anything"
    assert peak * 0.9 < asked[-1] < peak * 4


def test_the_longest_that_fits_really_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MemoryLimitError, match=r"x.mp4: 1000 sampled frames need .* longest that fits is 90 frames \(45 s"
    ):
        require(lambda frames: frames * 10, 1000, 1000, sampling_fps=2.0, source="x.mp4")
    require(lambda frames: frames * 10, 90, 1000, sampling_fps=2.0, source="x.mp4")
    with pytest.raises(MemoryLimitError, match="not even one frame fits"):
        require(lambda frames: 5000, 3, 1000, sampling_fps=2.0, source="x.mp4")


def test_the_refused_length_is_the_border(tiny: TOPReward) -> None:
    frame = rolled_clip(count=1, height=64, width=64).frames([0])

    def still(seconds: int) -> Clip:
        return Clip(np.arange(seconds * 2) / 2.0, 2.0, 64, 64, lambda i: np.repeat(frame, len(i), axis=0))

    small = TOPReward(tiny.model, memory_limit=80 * 2**20)
    with pytest.raises(MemoryLimitError) as caught:
        small.score(still(3000), "pick up the cup")
    fits = int(str(caught.value).split("longest that fits is ")[1].split()[0])
    assert 10 < fits < 6000
    small.score(still(fits // 2 * 9 // 10), "pick up the cup")
    with pytest.raises(MemoryLimitError):
        small.score(still(fits // 2 * 12 // 10), "pick up the cup")


def test_chunks_are_bounded() -> None:
    assert Load(2000, 1000, 0, 0, 0).branch_chunk == 8192
    assert Load(44_000, 90_000, 0, 0, 0).branch_chunk == 2750
    assert Load(500_000, 90_000, 0, 0, 0).branch_chunk * 500_000 < 2**28
