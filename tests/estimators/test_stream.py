"""A video that grows has the values that it would have if it ended there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clips import rolled_clip, rolled_frames
from hybrids import needs_hybrids
from topreward.config import Protocol, load_protocol
from topreward.errors import ConfigError, CurveError, MemoryLimitError, PromptError, VideoError
from topreward.estimators.topreward import TOPReward
from topreward.estimators.topreward.arriving import Arriving
from topreward.estimators.topreward.stream import Stream
from topreward.estimators.topreward.stream_state import StreamValue, Work
from topreward.qwen.model import QwenVL
from topreward.sampling import make_schedule
from topreward.types import Clip, Curve

ONE = "pick up the cup"
THREE = ["pick up the cup", "pick up the red block", "Open it."]
TOLERANCE = 1e-4


def first(clip: Clip, start: int, stop: int) -> Clip:
    """Frames [start, stop) as a clip of their own."""
    pts = clip.pts_seconds[start:stop] - clip.pts_seconds[start]
    return replace(clip, pts_seconds=pts, decode=lambda indices: clip.frames(indices + start))


def pushed(stream: Stream, clip: Clip, *, timed: bool = False) -> list[StreamValue]:
    values = []
    for i, frame in enumerate(clip.frames(np.arange(clip.num_frames))):
        value = stream.push(frame, float(clip.pts_seconds[i]) + 7.25 if timed else None)
        if value is not None:
            assert value.prefix_length == i + 1
            values.append(value)
    return values


def offline(model: TOPReward, clip: Clip, instructions: list[str], protocol: Protocol) -> NDArray[np.float64]:
    """(I, 2) the last value of a clip."""
    curves = model.score(clip, instructions, protocol=protocol)
    assert curves[0].log_prob_true is not None
    return np.array([[c.log_prob_true[-1], c.log_prob_false[-1]] for c in curves])  # type: ignore[index]


def assert_is(value: StreamValue, expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(value.log_prob_true, expected[:, 0], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(value.log_prob_false, expected[:, 1], atol=TOLERANCE, rtol=0)


def assert_streams(
    model: TOPReward, clip: Clip, instructions: list[str], protocol: Protocol, *, timed: bool = False
) -> None:
    """All values, and the curve after the end, are those of `score`."""
    last = replace_prefixes(protocol, 2)
    with model.stream(instructions, fps=clip.fps, protocol=protocol) as stream:
        values = pushed(stream, clip, timed=timed)
        end = stream.finish()
        values += [end] if end else []
        curves = stream.curve()
    assert np.ptp([v.log_prob_true[0] for v in values]) > 0.1 or len(values) < 3, "a constant would hide a mistake"
    for value in values:
        assert value.made == "whole"
        assert_is(value, offline(model, first(clip, 0, value.prefix_length), instructions, last))
    whole = model.score(clip, instructions, protocol=replace_prefixes(protocol, 0))
    assert isinstance(curves, list)
    for mine, theirs in zip(curves, whole, strict=True):
        only = mine.provenance["stream"]["only_online"]
        both = np.setdiff1d(mine.prefix_lengths, only)
        assert both.size or clip.num_frames == 2, "nothing was compared"
        assert set(both) <= set(theirs.prefix_lengths)
        at = np.isin(theirs.prefix_lengths, both)
        np.testing.assert_allclose(
            mine.values[np.isin(mine.prefix_lengths, both)], theirs.values[at], atol=TOLERANCE, rtol=0
        )
        assert mine.num_frames == clip.num_frames
        np.testing.assert_allclose(mine.times, clip.pts_seconds[mine.prefix_lengths - 1])


def replace_prefixes(protocol: Protocol, count: int) -> Protocol:
    return load_protocol(protocol, num_prefixes=count)


SETUPS = ["dense sdpa", "dense eager", "moe sdpa"]


@pytest.fixture(scope="module", params=SETUPS)
def model(request: pytest.FixtureRequest) -> TOPReward:
    kind, attention = request.param.split()
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    return TOPReward.from_pretrained(folder, device="cpu", attn_implementation=attention)


@pytest.mark.filterwarnings("ignore:transformers")
@pytest.mark.parametrize("protocol", ["paper", "dense"])
@pytest.mark.parametrize("instructions", [[ONE], THREE], ids=["one", "three"])
@pytest.mark.parametrize("count", [100, 91], ids=["end-unsampled", "end-sampled"])
def test_equals_score(model: TOPReward, protocol: str, instructions: list[str], count: int) -> None:
    # 7 or 8 sampled frames, so odd and even prefixes
    clip = rolled_clip(count=count, height=64, width=96)
    assert_streams(model, clip, instructions, load_protocol(protocol))


@pytest.mark.parametrize("rate", [2.0, 2.7, 3.0])
@pytest.mark.parametrize("protocol", ["paper", "dense"])
def test_sparse_frames(tiny: TOPReward, protocol: str, rate: float) -> None:
    """Grid points between frames: a frame may be sampled late, and the newest push out the last one."""
    assert_streams(tiny, rolled_clip(count=11, height=48, width=64, fps=rate), THREE, load_protocol(protocol))


@pytest.mark.parametrize("kind", ["dense", pytest.param("hybrid", marks=needs_hybrids)])
def test_a_block_is_taken_back(request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest frame may push out the last sampled one, whose block was complete; later it is there again."""
    taken_back = []
    next_pass = Stream.next_pass

    def watch(self: Stream, work: Work, blocks: int | None = None) -> Any:
        taken_back.append(self.blocks > work.kept_blocks)
        return next_pass(self, work, blocks)

    monkeypatch.setattr(Stream, "next_pass", watch)
    model = TOPReward.from_pretrained(request.getfixturevalue(f"{kind}_folder"), device="cpu")
    # moments at 0, .5, 1, …: frame 1 is nearest to .5, and to 1 as well; frame 2 is the last of a clip of three
    pts = np.array([0, 0.6875, 1.375, 2.0, 2.5, 3.1875, 3.875, 4.5, 5.1875, 5.875])
    clip = replace(rolled_clip(count=pts.size, height=64, width=64, fps=2.0), pts_seconds=pts)
    assert_streams(model, clip, THREE, load_protocol("dense"), timed=True)
    assert 0 < sum(taken_back) < len(taken_back)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("protocol", ["paper", "dense"])
def test_the_shortest_videos(tiny: TOPReward, protocol: str, count: int) -> None:
    assert_streams(tiny, rolled_clip(count=count, height=40, width=70, fps=7.0), THREE, load_protocol(protocol))


def test_with_the_chat_template(tiny: TOPReward) -> None:
    clip = rolled_clip(count=61, height=64, width=64)
    assert_streams(tiny, clip, THREE, load_protocol("paper", chat_template=True))


@needs_hybrids
@pytest.mark.parametrize("kind", ["hybrid", "hybrid_moe"])
def test_hybrids(request: pytest.FixtureRequest, kind: str) -> None:
    model = TOPReward.from_pretrained(request.getfixturevalue(f"{kind}_folder"), device="cpu")
    assert_streams(model, rolled_clip(count=91, height=64, width=64), THREE, load_protocol("paper"))
    assert_streams(model, rolled_clip(count=11, height=64, width=64, fps=2.7), [ONE], load_protocol("dense"))


# -- random times --------------------------------------------------------------------------------------

STEPS = st.lists(st.sampled_from([0.001, 0.03, 1 / 30, 0.1, 0.2, 0.25, 0.4, 0.5, 0.7, 1.0, 3.3]), max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    steps=STEPS,
    fps=st.sampled_from([1.0, 2.0, 3.0, 5.0, 14.985, 30.0]),
    rate=st.sampled_from([1.0, 2.0, 3.0, 7.3]),
    frames=st.sampled_from(["index_grid", "time_grid"]),
)
def test_sampling_agrees_with_every_clip_so_far(steps: list[float], fps: float, rate: float, frames: str) -> None:
    pts = np.concatenate([[0.0], np.cumsum(steps)])
    protocol = load_protocol("dense", frames=frames, sampling_fps=rate, prefix_ends="frames")
    arriving, settled, shown_last = Arriving(protocol, fps), list[int](), list[int]()
    for i, seconds in enumerate(pts):
        arriving, arrived = arriving.push(float(seconds))
        settled += arrived.settled
        sampled = make_schedule(pts[: i + 1], fps, protocol).indices.tolist()
        if arrived.before is not None:
            assert [*settled[: arrived.before], i] == sampled
            shown_last.append(i)
        before = arriving.end()
        assert (settled if before is None else [*settled[:before], i]) == sampled
        assert set(arrived.settled) <= {i - 1, i}
    # every frame that the whole clip samples was shown last when it came, or is settled by the one after it
    whole = make_schedule(pts, fps, protocol).indices.tolist()
    assert set(whole[:-1]) <= set(settled)


@settings(max_examples=12, deadline=None)
@given(steps=st.lists(st.sampled_from([0.1, 0.25, 0.34, 0.5, 0.8]), min_size=2, max_size=8), data=st.data())
def test_values_at_random_times(tiny: TOPReward, steps: list[float], data: st.DataObject) -> None:
    pts = np.concatenate([[0.0], np.cumsum(steps)])
    base = rolled_clip(seed=len(steps), count=pts.size, height=32, width=64)
    # a power of two: the clock's offset is exact
    pts = np.round(pts * 1024) / 1024
    clip = replace(base, pts_seconds=pts)
    protocol = load_protocol(data.draw(st.sampled_from(["dense", "paper"])), timestamps="presentation")
    assert_streams(tiny, clip, [ONE], protocol, timed=True)


# -- the bound -----------------------------------------------------------------------------------------


def as_shown(value: StreamValue, clip: Clip, protocol: Protocol) -> tuple[Clip, Protocol]:
    """A clip of exactly the frames that were shown, with their times, and the protocol that shows them all."""
    frames = clip.frames(value.frames)
    kept = replace(Clip.from_array(frames, 1.0), pts_seconds=value.frame_seconds)
    every = load_protocol(
        protocol, frames="index_grid", sampling_fps=1000.0, timestamps="presentation", prefix_ends="frames"
    )
    return kept, replace_prefixes(every, 2)


@pytest.mark.parametrize("protocol", ["paper", "dense"])
@pytest.mark.parametrize("kind", ["dense", "moe", pytest.param("hybrid", marks=needs_hybrids)])
@pytest.mark.filterwarnings("ignore:transformers")
def test_thin(request: pytest.FixtureRequest, kind: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topreward.estimators.topreward.stream.BLOCKS_AT_ONCE", 1)
    model = TOPReward.from_pretrained(request.getfixturevalue(f"{kind}_folder"), device="cpu")
    clip, chosen = rolled_clip(count=47, height=48, width=48, fps=2.0), load_protocol(protocol)
    stream = model.stream(THREE, fps=2.0, protocol=chosen, max_blocks=4, when_full="thin")
    values = pushed(stream, clip)
    end = stream.finish()
    assert {v.made for v in values} == {"whole", "thinned"}
    assert stream.blocks <= 4
    # 8 frames 0.5 s apart, then one every second, then every two, every four
    assert [v.prefix_length - 1 for v in values] == [*range(9), 10, 12, 14, 16, 20, 24, 28, 32, 40]
    for value in [*values, *([end] if end else [])]:
        kept, every = as_shown(value, clip, chosen)
        assert kept.num_frames <= 9
        assert_is(value, offline(model, kept, THREE, every))
    curve = stream.curve()
    assert isinstance(curve, list)
    assert "coarser schedule" in curve[0].notes[-1]
    assert curve[0].provenance["stream"]["made"][:9] == ["whole"] * 8 + ["thinned"]


@pytest.mark.parametrize("protocol", ["paper", "dense"])
def test_restart(tiny: TOPReward, protocol: str) -> None:
    clip, chosen = rolled_clip(count=200, height=48, width=48, fps=10.0), load_protocol(protocol)
    stream = tiny.stream(THREE, fps=10.0, protocol=chosen, max_blocks=3, when_full="restart")
    values = pushed(stream, clip)
    begun = sorted({v.first_frame for v in values})
    assert begun == [0, 30, 60, 90, 120, 150, 180]
    for value in values[::3] + values[-2:]:
        assert value.made == ("restarted" if value.first_frame else "whole")
        piece = first(clip, value.first_frame, value.prefix_length)
        assert_is(value, offline(tiny, piece, THREE, replace_prefixes(chosen, 2)))
    curve = stream.curve()
    assert isinstance(curve, list)
    assert "new beginning" in curve[0].notes[-1]


def test_refuse_takes_nothing(tiny: TOPReward) -> None:
    clip = rolled_clip(count=120, height=48, width=48, fps=10.0)
    frames = clip.frames(np.arange(120))
    stream = tiny.stream(ONE, fps=10.0, max_blocks=2)
    for frame in frames[:20]:
        stream.push(frame)
    for _ in range(2):
        with pytest.raises(MemoryLimitError, match=r"full: 4 frames are shown \(max_blocks is 2\) at 2.00 s"):
            stream.push(frames[20])
    assert stream.num_frames == 20
    end = stream.finish()
    assert end is not None
    assert_is(end, offline(tiny, first(clip, 0, 20), [ONE], load_protocol("dense", num_prefixes=2)))


def test_memory_is_asked_for_before_it_is_taken(dense_folder: Path) -> None:
    model = TOPReward.from_pretrained(dense_folder, device="cpu", memory_limit=2 * 2**20)
    stream = model.stream(ONE, fps=2.0, protocol="paper")
    with pytest.raises(MemoryLimitError, match="cache would grow to 2048 tokens"):
        pushed(stream, rolled_clip(count=60, height=48, width=48, fps=2.0))
    assert 0 < stream.cache.bytes <= 2**20


# -- what it costs -------------------------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    decode = QwenVL.decode

    def count(self: QwenVL, tokens: Any, *args: Any, **options: Any) -> Any:
        seen.append(len(tokens))
        return decode(self, tokens, *args, **options)

    monkeypatch.setattr(QwenVL, "decode", count)
    return seen


def test_a_push_costs_a_block_and_a_tail(tiny: TOPReward, passes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    see = QwenVL.see
    monkeypatch.setattr(QwenVL, "see", lambda self, p, grid: (looks.append(len(p) // 64), see(self, p, grid))[1])
    frames = rolled_frames(0, 121, 128, 128, 3)
    stream = tiny.stream(ONE, fps=4.0)
    storage = set()
    for i, frame in enumerate(frames):
        before = len(passes)
        value = stream.push(frame)
        assert len(passes) - before == (value is not None) == (i % 2 == 0)
        storage.add(id(stream.cache.keys[0]))
    block, question = 16 + 2, len(stream._tails[0])
    stamps = [len(tiny.model.encode(f"<{t:.1f} seconds>")) for t in np.arange(61) / 2]
    assert max(passes[2:]) <= block + question + max(stamps)
    assert set(looks) == {1}, "one block is seen a push"
    curve = stream.curve()
    assert isinstance(curve, Curve)
    assert sum(passes) == sum(curve.provenance["tokens"].values())
    assert stream.blocks == 30
    # doubled now and then, never copied at a push
    assert len(storage) <= 3
    assert stream.cache.capacity < 2 * 30 * (block + max(stamps)) + 1024


def test_pixels_are_let_go_of(tiny: TOPReward) -> None:
    stream = tiny.stream(ONE, fps=2.0)
    pushed(stream, rolled_clip(count=21, height=48, width=48, fps=2.0))
    assert sum(f.pixels is not None for f in stream._trunk.frames) <= 3


# -- how it is used ------------------------------------------------------------------------------------


def test_the_callers_memory_is_his_own(tiny: TOPReward) -> None:
    clip = rolled_clip(count=9, height=48, width=48, fps=2.7)
    buffer = np.empty((48, 48, 3), dtype=np.uint8)
    stream, other = tiny.stream(ONE, fps=2.7), tiny.stream(ONE, fps=2.7)
    for frame in clip.frames(np.arange(9)):
        buffer[:] = frame
        stream.push(buffer)
        other.push(frame)
    stream.finish()
    other.finish()
    np.testing.assert_array_equal(stream.curve().values, other.curve().values)  # type: ignore[union-attr]


def test_reset_begins_anew(tiny: TOPReward) -> None:
    clips = [rolled_clip(seed=i, count=31, height=48, width=48 + 32 * i, fps=10.0) for i in range(2)]
    stream = tiny.stream(ONE, fps=10.0)
    for clip in clips:
        pushed(stream, clip)
        stream.finish()
        values = stream.curve().values  # type: ignore[union-attr]
        np.testing.assert_allclose(values[-1], tiny.score(clip, ONE).values[-1], atol=TOLERANCE)
        assert stream.finish() is None
        stream.reset()
    with pytest.raises(CurveError, match="no value yet"):
        stream.curve()
    with pytest.raises(CurveError, match="before its first frame"):
        stream.finish()


def test_after_the_end_nothing_is_taken(tiny: TOPReward) -> None:
    frame = np.zeros((48, 48, 3), np.uint8)
    with tiny.stream(ONE, fps=10.0) as stream:
        value = stream.push(frame)
        assert value is not None
        assert float(value) == stream.curve().values[0]  # type: ignore[union-attr]
    with pytest.raises(VideoError, match=r"closed; reset\(\)"):
        stream.push(frame)
    assert stream.cache.bytes == 0
    assert len(stream.curve()) == 1
    stream.reset()
    stream.push(frame)
    stream.finish()
    with pytest.raises(VideoError, match=r"finished; reset\(\)"):
        stream.push(frame)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (np.zeros((48, 48), np.uint8), r"uint8 \(48, 48\), want uint8 \(H, W, 3\)"),
        (np.zeros((48, 48, 3), np.float32), "float32"),
        (np.zeros((0, 48, 3), np.uint8), r"\(0, 48, 3\)"),
        (np.zeros((48, 64, 3), np.uint8), "48x64 px, those before it 48x48"),
    ],
)
def test_frames_that_do_not_fit(tiny: TOPReward, frame: Any, why: str) -> None:
    stream = tiny.stream(ONE, fps=10.0)
    stream.push(np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(VideoError, match=why):
        stream.push(frame)
    assert stream.num_frames == 1


def test_times_that_do_not_fit(tiny: TOPReward) -> None:
    frame = np.zeros((48, 48, 3), np.uint8)
    stream = tiny.stream(ONE, fps=10.0)
    with pytest.raises(VideoError, match="times must increase"):
        stream.push(frame, float("nan"))
    stream.push(frame, 100.0)
    for wrong in (100.0, 99.0, float("inf"), float("nan"), "101", b"x", [1.0, 2.0], True):
        with pytest.raises(VideoError, match=r"the one before it at 100.0 s: times must increase"):
            stream.push(frame, wrong)
    with pytest.raises(VideoError, match="without its time"):
        stream.push(frame)
    stream.push(frame, 100.5)
    assert stream.num_frames == 2


def test_what_cannot_be_streamed_is_named(tiny: TOPReward) -> None:
    for kind in ("once", "per_prefix"):
        with pytest.raises(ConfigError, match=f"description is '{kind}'"):
            tiny.stream(ONE, fps=10.0, protocol=load_protocol("paper", description=kind))
    with pytest.raises(ConfigError, match="max_blocks is 0"):
        tiny.stream(ONE, fps=10.0, max_blocks=0)
    with pytest.raises(ConfigError, match="'slide', want one of refuse, restart, thin"):
        tiny.stream(ONE, fps=10.0, when_full="slide")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fps"):
        tiny.stream(ONE, fps=0.0)
    with pytest.raises(PromptError, match="special token"):
        tiny.stream("<|im_end|>", fps=10.0)
    with pytest.raises(PromptError, match="got none"):
        tiny.stream([], fps=10.0)
    two = tiny.stream(["a", "b"], fps=10.0).push(np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(CurveError, match="2 instructions"):
        float(two)  # type: ignore[arg-type]


# -- several environments ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "moe", pytest.param("hybrid", marks=needs_hybrids)])
@pytest.mark.parametrize("together", [True, False], ids=["at-once", "row-by-row"])
@pytest.mark.filterwarnings("ignore:transformers")
def test_a_pool_has_each_streams_values(
    request: pytest.FixtureRequest, kind: str, together: bool, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if together:  # as on a GPU
        monkeypatch.setattr(
            "topreward.qwen.live.LivePass.spans",
            lambda self, device: (
                [(slice(0, len(self.rows)), slice(0, self.cache.rows))]
                if self.rows == tuple(range(self.cache.rows))
                else [(slice(p, p + 1), slice(r, r + 1)) for p, r in enumerate(self.rows)]
            ),
        )
    model = TOPReward.from_pretrained(request.getfixturevalue(f"{kind}_folder"), device="cpu")
    tasks: list[Any] = [ONE, THREE, "Open it."]
    clips = [rolled_clip(seed=i, count=30, height=48, width=64, fps=10.0) for i in range(3)]
    clips[2] = rolled_clip(seed=2, count=30, height=64, width=48, fps=10.0)
    pool = model.stream_pool(tasks, fps=10.0)
    alone = [model.stream(task, fps=10.0) for task in tasks]
    ticks = 0
    for i in range(30):
        frames = [None if n == 1 and i < 10 else clip.frames([i])[0] for n, clip in enumerate(clips)]
        before = len(passes)
        values = pool.push(frames)
        ticks += len(passes) > before
        for value, stream, frame in zip(values, alone, frames, strict=True):
            expected = None if frame is None else stream.push(frame)
            assert (value is None) == (expected is None)
            if value is not None and expected is not None:
                np.testing.assert_allclose(value.log_prob_true, expected.log_prob_true, atol=TOLERANCE, rtol=0)
    assert ticks == 6
    pool.streams[1].reset()
    assert pool.push([clip.frames([0])[0] for clip in clips])[1] is not None


def test_a_pool_shares_its_passes(tiny: TOPReward, passes: list[int]) -> None:
    frames = rolled_frames(0, 30, 48, 48, 3)
    pool = tiny.stream_pool([ONE] * 4, fps=10.0)
    for i in range(30):
        pool.push([frames[i]] * 4)
    assert len(passes) == 6
    with pytest.raises(VideoError, match="environment 2: frame 30 is"):
        pool.push([frames[0], None, frames[0, 0], frames[0]])
    assert [s.num_frames for s in pool.streams] == [31, 30, 30, 31]
    with pytest.raises(ConfigError, match="1 frames and 4 times for a pool of 4"):
        pool.push([None])
    with pytest.raises(ConfigError, match="one for each environment"):
        tiny.stream_pool(ONE, fps=10.0)
