"""What GVL shows and says: which frames, in which order, between which texts.

In go frame counts, seeds and a wording; out come indices, permutations and strings. Pure numpy and text: no
pixels, no tokens. A prompt's images are, in this order: the anchor (the episode's first frame), the frames of
the in-context episodes, the frames to be judged; frames are numbered from 1 without the anchor.

Source: Ma et al., Vision Language Models are In-Context Value Learners (GVL), arXiv 2411.04549.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topreward.errors import ConfigError, DatasetError, PromptError
from topreward.estimators.gvl.protocol import GVLWording
from topreward.types import Clip, Episode


def even_frames(num_frames: int, count: int) -> NDArray[np.int64]:
    """(min(count, num_frames),) raw indices, evenly spread from the first frame to the last, increasing.

    One frame alone is the last: the state that the clip ends in.
    """
    if count == 1:
        return np.array([num_frames - 1], dtype=np.int64)
    return np.unique(np.round(np.linspace(0, num_frames - 1, count)).astype(np.int64))


def shuffled(seed: int, key: str, count: int) -> NDArray[np.int64]:
    """(count,) a permutation of 0 … count-1: which frame is shown at each place.

    Drawn from the seed and the key alone (an episode's id), so that it depends neither on what else is in a
    batch nor on the machine.
    """
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    # Ranks of raw 64-bit words: numpy keeps a bit generator's stream fixed over versions, a Generator's not.
    words = np.random.PCG64(int.from_bytes(digest, "big")).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def example_percentages(episode: Episode, clip: Clip, indices: NDArray[np.int64]) -> list[int]:
    """The percentage told for each of an in-context episode's frames, 0 … 100, whole as in the paper.

    The episode's true progress where it is known, else linear in time. Raises DatasetError where neither can be
    told honestly: a failed episode without progress, or progress that does not fit its clip.
    """
    if episode.progress is None:
        if episode.success is False:
            raise DatasetError(
                f"episode {episode.id} failed and its progress is not known: percentages linear in time would be false"
            )
        last = float(clip.pts_seconds[-1])
        share = clip.pts_seconds[indices] / last if last > 0 else np.ones(indices.size)
    else:
        progress = np.asarray(episode.progress, dtype=np.float64)
        if progress.shape != (clip.num_frames,):
            raise DatasetError(
                f"episode {episode.id}: progress has shape {progress.shape}, the clip has {clip.num_frames} frames"
            )
        share = progress[indices]
        if not ((share >= 0) & (share <= 1)).all():
            raise DatasetError(f"episode {episode.id}: progress leaves 0 … 1 ({share.min():g} … {share.max():g})")
    return [round(100 * float(s)) for s in share]


def texts(wording: GVLWording, instruction: str, examples: Sequence[Sequence[int]], count: int) -> list[str]:
    """The texts around a prompt's images: text 0, image 0, text 1, …, the last text.

    `examples`: each in-context episode's percentages, in the order shown. `count`: frames to be judged.
    Returns 2 + (frames of all examples) + count texts. Raises PromptError on an empty instruction.
    """
    if not instruction.strip():
        raise PromptError("the instruction is empty")
    out = [wording.opening + wording.task.replace("{task}", instruction) + wording.anchor_label]
    so_far = wording.anchor_statement
    number = 0
    for percentage in (p for example in examples for p in example):
        number += 1
        out.append(so_far + wording.example_label.replace("{i}", str(number)))
        so_far = wording.example_answer.replace("{p}", str(percentage))
    so_far += wording.request.replace("{task}", instruction)
    for _ in range(count):
        number += 1
        out.append(so_far + wording.frame_label.replace("{i}", str(number)))
        so_far = wording.frame_end
    return [*out, so_far + wording.closing]


def refuse_bad_examples(examples: Sequence[Episode], most: int) -> None:
    """Raise ConfigError for too many in-context episodes, or one twice."""
    ids = [episode.id for episode in examples]
    if len(ids) > most:
        raise ConfigError(f"{len(ids)} in-context episodes, want at most {most}")
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise ConfigError(f"in-context episodes given twice: {', '.join(twice)}")
