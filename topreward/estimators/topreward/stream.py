"""Values while the video grows: log p(` True`) of what has been filmed so far, at every sampled frame.

In go frames, one at a time; out come values, and a Curve at any moment. The value at n frames is the last value that
`TOPReward.score` has for a clip of these n frames: nothing is forgotten, no window slides. The trunk's keys stay, each
block is added once, and a value costs what its own block and its questions cost. What is not sampled never reaches the
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from topreward.config import Protocol
from topreward.errors import ConfigError, CurveError, MemoryLimitError, PromptError, VideoError
from topreward.estimators.shared.texts import refuse_special_tokens
from topreward.estimators.topreward import prompts
from topreward.estimators.topreward.arriving import Arriving
from topreward.estimators.topreward.call import notes_on
from topreward.estimators.topreward.stream_state import Made, Record, Shown, StreamValue, Trunk, WhenFull, Work
from topreward.limits import hold_fps
from topreward.provenance import software
from topreward.qwen import pixels
from topreward.qwen.layout import LAYOUT_VERSION, common_prefix
from topreward.qwen.live import LIVE_ATTENTION, LiveCache, live_pass
from topreward.qwen.live_layout import End, Next, lay_out_next
from topreward.qwen.model import QwenVL
from topreward.sampling import TEMPORAL_PATCH, frame_prefixes, patch_seconds
from topreward.types import Clip, Curve
from topreward.video.ready import Resize

BLOCKS_AT_ONCE = 16
"""Blocks that are prefilled together where many are due: a mask of bounded size."""


class Stream:
    """One video while it is filmed. Made by `TOPReward.stream`; not for several threads at once."""

    def __init__(
        self,
        model: QwenVL,
        instruction: str | Sequence[str],
        *,
        fps: float,
        protocol: Protocol,
        max_blocks: int = 256,
        when_full: WhenFull = "refuse",
        memory_limit: int | None = None,
        cache: LiveCache | None = None,
        row: int = 0,
    ) -> None:
        """`cache`, `row`: a cache shared with other streams, and whose row of it this one has.

        Raises ConfigError where the protocol cannot be streamed, and PromptError.
        """
        if protocol.description != "none":
            raise ConfigError(
                f"protocol {protocol.name} cannot be streamed: its key description is {protocol.description!r}, and a "
                "description is written anew for each prefix; take description: none, or score the finished clip"
            )
        if isinstance(max_blocks, bool) or not isinstance(max_blocks, int) or max_blocks < 1:
            raise ConfigError(f"max_blocks is {max_blocks!r}, want a whole number of at least 1")
        if when_full not in get_args(WhenFull):
            raise ConfigError(f"when_full is {when_full!r}, want one of {', '.join(get_args(WhenFull))}")
        hold_fps(fps, "stream: fps")
        self.model, self.protocol, self.fps = model, protocol, float(fps)
        self.max_blocks, self.when_full = max_blocks, when_full
        self.single = not isinstance(instruction, list | tuple)
        self.instructions: list[str] = list(instruction) if isinstance(instruction, list | tuple) else [instruction]  # type: ignore[list-item]
        if not self.instructions:
            raise PromptError("a stream needs an instruction, got none")
        self._tails, self._shared = self._questions()
        answers = prompts.answers(protocol.wording, chat_template=protocol.chat_template)
        self._answers = tuple(model.answer_id(a) for a in answers)
        self._shares_cache = cache is not None
        self._memory_limit = memory_limit
        self.cache = cache or LiveCache(model, memory_limit=memory_limit)
        self.row = row
        self._begin()

    def _questions(self) -> tuple[list[list[int]], list[int]]:
        wording, chat = self.protocol.wording, self.protocol.chat_template
        tails = []
        for text in self.instructions:
            refuse_special_tokens(text, self.model.special_tokens)
            asked = prompts.question(wording, text, chat_template=chat, thinks=self.model.closes_thinking)
            tails.append(self.model.encode(asked))
        shared = common_prefix(tails)
        return [tail[shared:] for tail in tails], tails[0][:shared]

    def _begin(self) -> None:
        self.finished = self._closed = False
        self.record = Record()
        self.resize: Resize | None = None
        """How frames are resized; known with the first one."""
        self._size: tuple[int, int] | None = None
        self._times_given: bool | None = None
        self._origin = 0.0
        """What the caller called the first frame's time."""
        self._last: tuple[int, float, NDArray[np.uint8]] | None = None
        """Raw index, time and picture of the newest frame: the end, or the next frame, may yet ask for it."""
        self._restart(0, 0.0)

    def _restart(self, first_frame: int, seconds: float) -> None:
        self._first_frame, self._first_seconds = first_frame, seconds
        self._arriving = Arriving(self.protocol, self.fps)
        self._trunk = Trunk()
        self.record.settled = []
        self.cache.clear(self.row)

    # -- what is asked of it ---------------------------------------------------------------------------

    @property
    def num_frames(self) -> int:
        """Raw frames so far."""
        return 0 if self._last is None else self._last[0] + 1

    @property
    def blocks(self) -> int:
        """Temporal patches in the cache."""
        return self._trunk.blocks

    @torch.inference_mode()
    def push(self, frame: ArrayLike, seconds: float | None = None) -> StreamValue | None:
        """One more frame; a value where the protocol samples it, else None.

        `frame`: (H, W, 3) uint8 RGB, all of one size; it may be written over afterwards. `seconds`: when it was taken,
        on any clock, later than the one before; given for every frame or for none (then frame i is at i / fps).
        Raises VideoError, and MemoryLimitError where the stream is full and `when_full` is `refuse`: the frame is then
        not taken. Where there is no memory for the cache to grow, it is taken, and only its value is missing.
        """
        work = self.take(frame, seconds)
        if work is None:
            return None
        return run_together([self], [work])[0]

    @torch.inference_mode()
    def finish(self) -> StreamValue | None:
        """The video ends here. Scores the whole where its end shows a frame that has not been shown last yet.

        Frames cannot be pushed any more; `reset` begins anew. Raises CurveError where no frame came.
        """
        work = self.take_end()
        return None if work is None else run_together([self], [work])[0]

    def reset(self) -> None:
        """Forget the video and its values, for another one with the same instructions; the storage is kept."""
        self._begin()

    def close(self) -> None:
        """Give the memory back. What was scored can still be read; `reset` begins another video."""
        self._closed = True
        self._trunk = Trunk()
        self._last = None if self._last is None else (*self._last[:2], np.empty((0, 0, 3), np.uint8))
        self.cache.clear(self.row)
        if not self._shares_cache:
            self.cache = LiveCache(self.model, memory_limit=self._memory_limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Stream({len(self.instructions)} instruction(s), {self.num_frames} frames, {len(self.record.lengths)} "
            f"values, {self.blocks} of {self.max_blocks} blocks{', finished' if self.finished else ''})"
        )

    def curve(self) -> Curve | list[Curve]:
        """All values so far, as a Curve; a list of them where a list of instructions was given.

        `provenance["stream"]` says under which policy each was made. After `finish` its key `only_online` lists the
        prefix lengths that `score` of the finished clip does not have, or has with other frames, even with
        `num_prefixes=0`; all others have its values. Raises CurveError where there is no value yet.
        """
        record = self.record
        if not record.lengths:
            raise CurveError("the stream has no value yet")
        answers = np.stack(record.answers)
        provenance = self._provenance()
        curves = [
            Curve(
                instruction=text,
                prefix_lengths=np.array(record.lengths),
                times=np.array(record.times),
                values=answers[:, column, 0],
                unit="nats",
                num_frames=self.num_frames,
                log_prob_true=answers[:, column, 0],
                log_prob_false=answers[:, column, 1],
                notes=self._notes(),
                provenance=provenance,
            )
            for column, text in enumerate(self.instructions)
        ]
        return curves[0] if self.single else curves

    # -- from a frame to what is due -------------------------------------------------------------------

    def take(self, frame: ArrayLike, seconds: float | None = None) -> Work | None:
        """Take a frame in; what the model has to run for it, or None. Raises what `push` raises, and takes nothing."""
        if self.finished or self._closed:
            raise VideoError(f"the stream is {'finished' if self.finished else 'closed'}; reset() begins another video")
        picture = self._picture(frame)
        index, time = self.num_frames, self._time(seconds)
        arriving, arrived = self._arriving.push(self._since_beginning(index, time))
        coming = self._coming(arrived.settled)
        full = len(self._trunk.frames) + len(coming) > TEMPORAL_PATCH * self.max_blocks
        if full and self.when_full == "refuse":
            raise MemoryLimitError(
                f"the stream is full: {TEMPORAL_PATCH * self.max_blocks} frames are shown (max_blocks is "
                f"{self.max_blocks}) at {time:.2f} s; finish it, raise max_blocks, or set when_full to thin or restart"
            )
        if full and self.when_full == "restart":
            self._restart(index, time)
            arriving, arrived = self._arriving.push(0.0)
        self._admit(picture, seconds)
        before, self._last = self._last, (index, time, picture)
        self._arriving = arriving
        for number in arrived.settled:
            self._settle(self._first_frame + number, before)
        return None if arrived.before is None else self._work(arrived.before)

    def take_end(self) -> Work | None:
        """End the video; what the model has to run for its last value, or None where it is there."""
        if self.finished:
            return None
        if self._closed:
            raise VideoError("the stream is closed; finish it before that")
        if self._last is None:
            raise CurveError("the stream is finished before its first frame")
        self.finished = True
        before = self._arriving.end()
        known = self.record.lengths[-1:] == [self.num_frames]
        return None if known or before is None else self._work(before, at_end=True)

    def _picture(self, frame: ArrayLike) -> NDArray[np.uint8]:
        picture = np.asarray(frame)
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
            raise VideoError(f"frame {self.num_frames} is {picture.dtype} {picture.shape}, want uint8 (H, W, 3)")
        if self._size is not None and picture.shape[:2] != self._size:
            raise VideoError(
                f"frame {self.num_frames} is {picture.shape[0]}x{picture.shape[1]} px, those before it "
                f"{self._size[0]}x{self._size[1]}: a video has one size; reset() begins another"
            )
        if self.resize is None:  # before anything is taken: a size may be refused
            self._resize_of(picture)
        return np.array(picture)  # an environment may write its next frame into the same memory

    def _resize_of(self, picture: NDArray[np.uint8]) -> Resize:
        clip = Clip.from_array(picture[None], self.fps, source="stream")
        return pixels.resize_of(clip, self.protocol.resize, self.protocol.frame_pixels)

    def _time(self, seconds: float | None) -> float:
        """Time since the first frame."""
        index = self.num_frames
        if self._times_given is not None and (seconds is not None) != self._times_given:
            raise VideoError(
                f"frame {index} comes {'with' if seconds is not None else 'without'} its time, unlike those before it; "
                "give seconds for every frame, or for none"
            )
        if seconds is None:
            return index / self.fps
        try:
            given = float("nan") if isinstance(seconds, str | bytes | bool) else float(seconds)
        except (TypeError, ValueError):
            given = float("nan")
        time = given - (self._origin if self._last is not None else given)
        if not np.isfinite(time) or (self._last is not None and time <= self._last[1]):
            last = "none" if self._last is None else f"{self._last[1] + self._origin!r} s"
            raise VideoError(f"frame {index} is at {seconds!r} s, the one before it at {last}: times must increase")
        return time

    def _admit(self, picture: NDArray[np.uint8], seconds: float | None) -> None:
        """The first frame decides what all others must be like."""
        if self.resize is None:
            self.resize = self._resize_of(picture)
            self._size = (picture.shape[0], picture.shape[1])
            self._times_given = seconds is not None
            self._origin = 0.0 if seconds is None else float(seconds)

    def _since_beginning(self, index: int, time: float) -> float:
        """Time since the frame that this part of the video begins with."""
        return (index - self._first_frame) / self.fps if self._times_given is False else time - self._first_seconds

    def _coming(self, settled: Sequence[int]) -> list[int]:
        """Of frames that are now sampled for good, those that are kept."""
        first = len(self.record.settled)
        return [n for ordinal, n in enumerate(settled, first) if ordinal % self._trunk.stride == 0]

    def _settle(self, index: int, before: tuple[int, float, NDArray[np.uint8]] | None) -> None:
        """A frame is sampled for good: the newest, or the one before it."""
        ordinal = len(self.record.settled)
        self.record.settled.append(index)
        trunk = self._trunk
        if ordinal % trunk.stride:
            return
        if len(trunk.frames) == TEMPORAL_PATCH * self.max_blocks:
            trunk.frames, trunk.ends, trunk.stride = trunk.frames[::2], [End()], 2 * trunk.stride
            self.cache.clear(self.row)
            if ordinal % trunk.stride:
                return
        assert self._last is not None
        source = self._last if self._last[0] == index else before
        assert source is not None
        assert source[0] == index
        trunk.frames.append(self._shown(source))

    def _shown(self, source: tuple[int, float, NDArray[np.uint8]]) -> Shown:
        assert self.resize is not None
        index, time, picture = source
        within = index - self._first_frame
        seconds = within / self.fps if self.protocol.timestamps == "index" else self._since_beginning(index, time)
        return Shown(index, seconds, pixels.resized(picture[None], self.resize, self.model.device))

    def _work(self, before: int, *, at_end: bool = False) -> Work | None:
        """What shows the newest frame last, behind so many of those sampled for good."""
        trunk = self._trunk
        if before % trunk.stride and not at_end:
            return None
        assert self._last is not None
        shown = trunk.frames[: -(-before // trunk.stride)]
        stays = len(shown)
        if len(trunk.frames) > stays and trunk.frames[stays].index == self._last[0]:
            shown.append(trunk.frames[stays])
            stays += 1
        else:
            shown.append(self._shown(self._last))
        return Work(shown, stays // TEMPORAL_PATCH)

    # -- from what is due to a value -------------------------------------------------------------------

    @property
    def grid(self) -> tuple[int, int]:
        """Visual tokens per block, (height, width)."""
        assert self.resize is not None
        return pixels.token_grid((self.resize.height, self.resize.width))

    def next_pass(self, work: Work, blocks: int | None = None) -> tuple[Next, list[Tensor]]:
        """The tokens of the next pass and the pixels of its blocks; with `blocks`, only so many that stay."""
        trunk = self._trunk
        # Between sparse frames the newest may push out the last one, which a block may hold already.
        del trunk.ends[work.kept_blocks + 1 :]
        first = trunk.blocks
        stop = work.kept_blocks if blocks is None else first + blocks
        begin = TEMPORAL_PATCH * first
        frames = work.shown[begin : TEMPORAL_PATCH * stop] if blocks is not None else work.shown[begin:]
        if len(frames) % TEMPORAL_PATCH:
            frames = [*frames, frames[-1]]
        seconds = patch_seconds(np.array([f.seconds for f in frames]))
        asks = blocks is None
        laid_out = lay_out_next(
            self.model.encode,
            self.model.vision_tokens,
            opening=self.protocol.wording.opening,
            grid=self.grid,
            begin=trunk.ends[-1],
            stays=seconds[: stop - first],
            passing=seconds[stop - first :],
            shared=self._shared if asks else (),
            tails=self._tails if asks else (),
        )
        return laid_out, [f.held for f in frames]

    def grown(self, laid_out: Next) -> None:
        """A pass has run: its blocks stay."""
        trunk = self._trunk
        trunk.ends.extend(laid_out.ends)
        self.record.trunk_tokens += laid_out.kept
        self.record.branch_tokens += len(laid_out.tokens) - laid_out.kept
        if self.when_full != "thin":  # nobody looks at them again; the last block may be taken back
            last = TEMPORAL_PATCH * (trunk.blocks - 1)
            for number in range(max(0, last - TEMPORAL_PATCH * len(laid_out.ends)), last):
                trunk.frames[number] = replace(trunk.frames[number], pixels=None)

    def valued(self, work: Work, hidden: Tensor) -> StreamValue:
        """Read a value. `hidden`: (I, hidden), of each question. Raises ModelError where it is NaN or infinite."""
        assert self._last is not None
        answers = self.model.log_probs(hidden, self._answers)
        index, time, _ = self._last
        made: Made = "thinned" if self._trunk.stride > 1 else "restarted" if self._first_frame else "whole"
        record = self.record
        record.lengths.append(index + 1)
        record.times.append(time)
        record.answers.append(answers)
        record.counts.append(len(work.shown))
        record.made.append(made)
        record.first_frames.append(self._first_frame)
        return StreamValue(
            prefix_length=index + 1,
            seconds=time,
            log_prob_true=answers[:, 0],
            log_prob_false=answers[:, 1],
            made=made,
            first_frame=self._first_frame,
            frames=np.array([f.index for f in work.shown]),
            frame_seconds=np.array([f.seconds for f in work.shown]),
        )

    # -- how it was made -------------------------------------------------------------------------------

    def _only_online(self) -> list[int]:
        """Prefix lengths of values that the finished clip's own curve does not have."""
        record, last = self.record, self.num_frames - 1
        before = self._arriving.end()
        sampled = record.settled if before is None else [*record.settled[:before], last]
        by_frames = self.protocol.prefix_ends == "frames"
        least = int(frame_prefixes(self.num_frames, 0)[0]) if by_frames else 1
        out = []
        for length, count, made in zip(record.lengths, record.counts, record.made, strict=True):
            there = made == "whole" and not self._first_frame and least <= length and count <= len(sampled)
            there = there and sampled[count - 1] == length - 1
            there = there and (by_frames or count % TEMPORAL_PATCH == 0 or count == len(sampled))
            if not there:
                out.append(length)
        return out

    def _notes(self) -> tuple[str, ...]:
        notes = notes_on(self.model, self.protocol, max(self.record.counts))
        for made, what in (
            ("thinned", "of a coarser schedule, because the stream was full"),
            ("restarted", "of the video since a new beginning only, because the stream was full"),
        ):
            if made in self.record.made:
                first = self.record.lengths[self.record.made.index(made)]
                notes.append(f"values from the prefix of {first} frames on are {what}")
        return tuple(notes)

    def _provenance(self) -> dict[str, Any]:
        closes = self.protocol.chat_template and self.model.closes_thinking
        height, width = self._size or (0, 0)
        assert self.resize is not None
        stream: dict[str, Any] = {
            "max_blocks": self.max_blocks,
            "when_full": self.when_full,
            "made": list(self.record.made),
            "first_frames": list(self.record.first_frames),
            "finished": self.finished,
        }
        if self.finished:
            stream["only_online"] = self._only_online()
        return {
            "estimator": "topreward",
            **self.model.provenance,
            "protocol": self.protocol.model_dump(),
            "layout_version": LAYOUT_VERSION,
            **({"thinking": "closed"} if closes else {}),
            "one_pass": True,
            "kernels": self.model.kernels | {"trunk": LIVE_ATTENTION, "branch": LIVE_ATTENTION},
            "packed": self.cache.rows,
            "video": {
                "source": "stream",
                "fps": self.fps,
                "height": height,
                "width": width,
                "resized": [self.resize.height, self.resize.width],
                "sampled_indices": list(self.record.settled),
            },
            "tokens": {"trunk": self.record.trunk_tokens, "branch": self.record.branch_tokens},
            "stream": stream,
            "software": software(),
        }


def run_together(streams: Sequence[Stream], works: Sequence[Work]) -> list[StreamValue]:
    """Run what is due of streams that share a cache and a frame size: one vision call and one decoder call for all.

    Streams that have many blocks due, after thinning, prefill them first, some at a time.
    """
    for stream, work in zip(streams, works, strict=True):
        while work.kept_blocks - stream.blocks > BLOCKS_AT_ONCE:
            laid_out, shown = stream.next_pass(work, BLOCKS_AT_ONCE)
            _run([stream], [laid_out], shown)
    passes = [stream.next_pass(work) for stream, work in zip(streams, works, strict=True)]
    hidden = _run(streams, [laid_out for laid_out, _ in passes], [frame for _, shown in passes for frame in shown])
    return [stream.valued(work, part) for stream, work, part in zip(streams, works, hidden, strict=True)]


def _run(streams: Sequence[Stream], nexts: Sequence[Next], shown: Sequence[Tensor]) -> list[Tensor]:
    cache, grid = streams[0].cache, streams[0].grid
    cache.require(max(part.begin.tokens + len(part.tokens) for part in nexts))  # before anything is looked at
    features = cache.model.see(pixels.to_patches(torch.cat(list(shown))), grid)
    hidden = live_pass(cache, [stream.row for stream in streams], nexts, features)
    for stream, part in zip(streams, nexts, strict=True):
        stream.grown(part)
    return hidden
