"""Short episodes in the same passes: each has the values that it has alone, and those of the slow twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clips import rolled_clip
from topreward.config import load_protocol
from topreward.errors import ConfigError, MemoryLimitError, VideoError
from topreward.estimators.topreward import TOPReward
from topreward.estimators.topreward.call import Call
from topreward.estimators.topreward.one_pass import in_batches
from topreward.estimators.topreward.slow_twin import prefix_by_prefix
from topreward.qwen.model import QwenVL
from topreward.types import Clip, Curve, Episode

TASKS = ["pick up the cup", "pick up the red block", "Open it."]
SIZES = [(64, 96), (96, 64), (64, 96), (48, 48), (64, 96)]
LENGTHS = [7, 1, 4, 5, 2]  # sampled frames: odd, one, even, and none with a trunk as long as the first's


def clips() -> list[Clip]:
    return [
        rolled_clip(seed=i, count=count, height=h, width=w, fps=2.0)
        for i, (count, (h, w)) in enumerate(zip(LENGTHS, SIZES, strict=True))
    ]


def episodes(count: int = 5) -> list[Episode]:
    made = clips()
    return [Episode(f"e{i}", TASKS[i % 3], lambda i=i: made[i]) for i in range(count)]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the tokens of every pass through the decoder."""
    seen: list[tuple[int, ...]] = []
    decode = QwenVL.decode

    def counting(self: QwenVL, tokens: Any, *args: Any, **options: Any) -> Any:
        seen.append(tokens.ids.shape)
        return decode(self, tokens, *args, **options)

    monkeypatch.setattr(QwenVL, "decode", counting)
    return seen


@pytest.mark.filterwarnings("ignore:transformers")
@pytest.mark.parametrize(
    "setup", ["dense sdpa grouped", "dense sdpa folded", "dense eager dense", "moe sdpa dense", "moe eager folded"]
)
@pytest.mark.parametrize("protocol", ["paper", "dense"])
@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS], ids=["one", "three"])
def test_together_as_alone_as_the_slow_twin(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    setup: str,
    protocol: str,
    tasks: list[str],
    passes: list[tuple[int, ...]],
) -> None:
    monkeypatch.setattr("topreward.qwen.attention.folded_groups", lambda tokens: 2)  # for the clips one by one
    kind, attention, kernel = setup.split()
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    model = TOPReward.from_pretrained(
        folder,
        device="cpu",
        attn_implementation=attention,
        branch_kernel=kernel,  # type: ignore[arg-type]
    ).model
    how = load_protocol(protocol, num_prefixes=4)
    calls = [Call(model, clip, tasks, how) for clip in clips()]
    together = list(in_batches(calls, model, batch_size=5))
    assert [shape[0] for shape in passes] == [5, 5], "want one trunk pass and one branch pass, a row for each clip"
    assert [packed for _, _, packed in together] == [5] * 5
    alone = list(in_batches(calls, model, batch_size=1))
    for call, (_, ours, _), (_, single, _) in zip(calls, together, alone, strict=True):
        assert ours.shape == (len(call.counts), len(tasks), 2)
        np.testing.assert_allclose(ours, single, atol=1e-4, rtol=0)
        np.testing.assert_allclose(ours, prefix_by_prefix(call), atol=1e-4, rtol=0)
    assert np.ptp(together[0][1][:, 0, 0]) > 0.1, "a constant curve would hide a mistake"


def test_clips_of_one_frame_have_no_trunk_together(tiny: TOPReward) -> None:
    shown = [Episode(f"e{i}", TASKS[i], lambda i=i: rolled_clip(seed=i, count=1)) for i in range(3)]
    together = list(tiny.score_many(shown, batch_size=3))
    for curve, episode in zip(together, shown, strict=True):
        np.testing.assert_allclose(curve.values, tiny.score(episode.clip(), episode.instruction).values, atol=1e-4)


def test_curves_come_in_order_and_say_how_many_shared_the_passes(tiny: TOPReward) -> None:
    curves = list(tiny.score_many(episodes(), protocol="paper", batch_size=2))
    assert [c.episode_id for c in curves] == ["e0", "e1", "e2", "e3", "e4"]
    assert [c.instruction for c in curves] == [TASKS[0], TASKS[1], TASKS[2], TASKS[0], TASKS[1]]
    assert [c.provenance["packed"] for c in curves] == [2, 2, 2, 2, 1]
    for curve, episode in zip(curves, episodes(), strict=True):
        alone = tiny.score(episode.clip(), episode.instruction, protocol="paper")
        np.testing.assert_allclose(curve.values, alone.values, atol=1e-4)
        assert curve.provenance["tokens"] == alone.provenance["tokens"]
    plain = list(tiny.score_many(episodes(2), protocol="paper", batch_size=2, one_pass=False))
    np.testing.assert_allclose(plain[1].values, curves[1].values, atol=1e-4)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        next(tiny.score_many(episodes(), batch_size=0))


def test_blocks_of_one_size_are_seen_in_one_call(tiny: TOPReward, monkeypatch: pytest.MonkeyPatch) -> None:
    grids = []
    see = QwenVL.see
    monkeypatch.setattr(QwenVL, "see", lambda self, patches, grid: (grids.append(grid), see(self, patches, grid))[1])
    list(tiny.score_many(episodes(), protocol="dense", batch_size=5))
    assert sorted(grids) == [(2, 2), (2, 3), (3, 2)]
    grids.clear()
    monkeypatch.setattr("topreward.estimators.topreward.sight.FRAMES_AT_ONCE", 2)  # all clips are seen in parts
    parts = list(tiny.score_many(episodes(), protocol="dense", batch_size=5))
    assert len(grids) > 8
    for part, episode in zip(parts, episodes(), strict=True):
        alone = tiny.score(episode.clip(), episode.instruction)
        np.testing.assert_allclose(part.values, alone.values, atol=1e-4)


def broken(where: str) -> Episode:
    def unreadable(*_: Any) -> Any:
        raise VideoError("broken.mp4: cannot be read")

    whole = rolled_clip(count=9, height=64, width=96, fps=2.0)
    cut = Clip(whole.pts_seconds, whole.fps, whole.height, whole.width, unreadable, source="broken.mp4")
    opens: dict[str, Callable[[], Clip]] = {"opened": unreadable, "decoded": lambda: cut}
    return Episode("broken", TASKS[0], opens[where])


@pytest.mark.parametrize("where", ["opened", "decoded"])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_a_broken_episode_takes_no_neighbour_with_it(tiny: TOPReward, where: str, batch_size: int) -> None:
    listed: Iterator[Episode] = iter([*episodes(3), broken(where), *episodes(2)])
    done: list[Curve] = []
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        done.extend(tiny.score_many(listed, protocol="paper", batch_size=batch_size))
    assert [c.episode_id for c in done] == ["e0", "e1", "e2"]
    np.testing.assert_allclose(done[2].values, tiny.score(clips()[2], TASKS[2], protocol="paper").values, atol=1e-4)
    rest = list(tiny.score_many(listed, protocol="paper", batch_size=batch_size))
    assert [c.episode_id for c in rest] == ["e0", "e1"]


def test_a_batch_is_cut_to_what_fits(dense_folder: Path) -> None:
    roomy = TOPReward.from_pretrained(dense_folder, device="cpu")
    long = [Episode(f"e{i}", TASKS[0], lambda i=i: rolled_clip(seed=i, count=12, fps=2.0)) for i in range(6)]
    whole = list(roomy.score_many(long, batch_size=6))
    assert [c.provenance["packed"] for c in whole] == [6] * 6
    for limit in range(1, 200):
        small = TOPReward(roomy.model, memory_limit=limit * 2**20)
        try:
            cut = list(small.score_many(long, batch_size=6))
        except MemoryLimitError:
            continue
        break
    assert {c.provenance["packed"] for c in cut} < {1, 2, 3}, "just enough for one leaves no room for six"
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-4)
    huge = Clip(np.arange(50_000) / 2.0, 2.0, 256, 256, rolled_clip(count=1).decode, source="long.mp4")
    done: list[Curve] = []
    with pytest.raises(MemoryLimitError, match=r"long\.mp4"):
        done.extend(small.score_many([*long[:2], Episode("huge", TASKS[0], lambda: huge)], batch_size=3))
    assert [c.episode_id for c in done] == ["e0", "e1"]


def test_a_protocol_that_describes_takes_one_at_a_time(tiny: TOPReward) -> None:
    how = load_protocol("paper", num_prefixes=2, description="once", max_description_tokens=3)
    curves = list(tiny.score_many(episodes(2), protocol=how, batch_size=2))
    assert [c.provenance["packed"] for c in curves] == [1, 1]
    alone = tiny.score(clips()[0], TASKS[0], protocol=how)
    np.testing.assert_allclose(curves[0].values, alone.values, atol=1e-4)
