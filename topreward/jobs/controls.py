"""Controls: what a curve must not, or must, do when the video shows no progress, or the wrong one.

In go a Clip, episodes or a Curve; out come the frozen and the reversed Clip, the other instructions and the time
index. No pixel is decoded anew: a control asks the clip it is made from for its frames.

An estimator that reads progress gives the frozen video a flat curve, the reversed one a falling curve, and rises
less under another episode's instruction. One that counts frames gives all of them the curve of the real video.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from topreward.jobs.plan import TIME_INDEX
from topreward.types import Clip, Curve, Episode
from topreward.video.ready import remapped


def frozen(clip: Clip) -> Clip:
    """The first frame at every time of the clip."""
    return remapped(clip, np.zeros_like, source=f"{clip.source} (frozen)")


def backwards(clip: Clip) -> Clip:
    """Frame i is frame T-1-i; the times stay as they are."""
    last = clip.num_frames - 1
    return remapped(clip, lambda indices: last - indices, source=f"{clip.source} (reversed)")


def other_instructions(episodes: Sequence[Episode], seed: int = 0) -> list[str | None]:
    """For each episode the instruction of another one that is worded differently, None where there is none.

    Each of the other wordings is equally likely. Drawn from a hash of the seed, the episode's id and the wording:
    the same on every machine, and whatever the order of the episodes.
    """
    wordings = sorted({episode.instruction for episode in episodes})

    def drawn(episode: Episode) -> str | None:
        def rank(text: str) -> bytes:
            return hashlib.sha256(f"{seed}\0{episode.id}\0{text}".encode()).digest()

        return min((text for text in wordings if text != episode.instruction), key=rank, default=None)

    return [drawn(episode) for episode in episodes]


def time_index(curve: Curve) -> Curve:
    """The share of the clip's frames that each prefix shows, percent: a clock, as if it were an estimator."""
    return curve.with_values(
        100.0 * curve.prefix_lengths / curve.num_frames,
        "percent",
        log_prob_true=None,
        log_prob_false=None,
        notes=(),
        provenance={"estimator": TIME_INDEX},
    )
