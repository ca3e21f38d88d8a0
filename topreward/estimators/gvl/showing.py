"""What GVL puts before the model: an episode's frames, shuffled, resized and laid out between the texts.

In go clips and a protocol; out come Questions, which are laid out before any frame is decoded, their pixels, and
what the vision tower sees of those. Knows nothing of answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topreward.estimators.gvl import prompts
from topreward.estimators.gvl.protocol import MAX_EXAMPLES, GVLProtocol
from topreward.estimators.shared.frames import FRAMES_AT_ONCE
from topreward.estimators.shared.texts import refuse_special_tokens
from topreward.qwen import pixels
from topreward.qwen.batch import image_tokens
from topreward.qwen.image_layout import Grid, ImagePrompt, lay_out_images
from topreward.qwen.model import Features, QwenVL
from topreward.sampling import TEMPORAL_PATCH
from topreward.types import Clip, Episode
from topreward.video.ready import Resize


@dataclass(frozen=True, eq=False)
class Example:
    """An in-context episode, shuffled and seen."""

    id: str
    percentages: list[int]
    """(n,) as shown."""
    shown: Tensor
    """(n, 3, h, w)"""
    features: Features
    grid: Grid


@dataclass(frozen=True, eq=False)
class Question:
    """One episode, laid out to be asked about; no frame of it is decoded yet."""

    clip: Clip
    instruction: str
    episode_id: str | None
    indices: NDArray[np.int64]
    """(K,) raw frames to be judged, increasing."""
    order: NDArray[np.int64]
    """(K,) place in time of each frame shown."""
    resize: Resize
    """What is done to frames before they are shown."""
    prompt: ImagePrompt

    @property
    def size(self) -> pixels.Size:
        """(height, width) px that frames are resized to."""
        return self.resize.height, self.resize.width


class Showing:
    """A protocol and its in-context episodes, for one or many episodes."""

    def __init__(self, model: QwenVL, protocol: GVLProtocol, examples: Sequence[Episode]) -> None:
        """Raises ConfigError for too many examples, DatasetError for one that has no honest percentages."""
        self.model = model
        self.protocol = protocol
        self.image = image_tokens(model)
        prompts.refuse_bad_examples(examples, MAX_EXAMPLES)
        self.given = tuple(examples)
        self.examples = [self._example(e) for e in examples]
        self.first = 1 + sum(len(e.percentages) for e in self.examples)
        """Number of the first frame to be judged."""

    def shows(self, protocol: GVLProtocol, examples: Sequence[Episode]) -> bool:
        """Whether it was made of this protocol and of these very episodes."""
        same = len(examples) == len(self.given) and all(a is b for a, b in zip(examples, self.given, strict=True))
        return same and protocol == self.protocol

    def question(self, clip: Clip, instruction: str, key: str, *, episode_id: str | None = None) -> Question:
        """`key`: decides, with the seed, in which order the frames are shown. Raises PromptError."""
        refuse_special_tokens(instruction, self.model.special_tokens)
        indices = prompts.even_frames(clip.num_frames, self.protocol.num_frames)
        order = prompts.shuffled(self.protocol.seed, key, indices.size)
        percentages = [e.percentages for e in self.examples]
        texts = prompts.texts(self.protocol.wording, instruction, percentages, indices.size)
        resize = self._resize(clip)
        size = (resize.height, resize.width)
        grid = pixels.token_grid(size)
        grids = [grid, *(e.grid for e in self.examples for _ in e.percentages), *[grid] * indices.size]
        prompt = lay_out_images(self.model.encode, self.image, texts=texts, grids=grids)
        return Question(clip, instruction, episode_id, indices, order, resize, prompt)

    def shown(self, question: Question) -> Tensor:
        """(1 + K, 3, h, w): decoded and resized, the anchor first, then the frames as shown. Raises VideoError."""
        frames = self._pixels(question.clip, np.concatenate([[0], question.indices]), question.resize)
        return frames[np.concatenate([[0], 1 + question.order])]

    def patches(self, shown: Tensor) -> Tensor:
        """(…, 1536) patches of all images of a question's prompt, in their order: for the slow twin."""
        parts = [shown[:1], *(e.shown for e in self.examples), shown[1:]]
        return torch.cat([still_patches(part) for part in parts])

    def _example(self, episode: Episode) -> Example:
        clip = episode.clip()
        indices = prompts.even_frames(clip.num_frames, self.protocol.num_frames)
        percentages = prompts.example_percentages(episode, clip, indices)
        order = prompts.shuffled(self.protocol.seed, episode.id, indices.size)
        resize = self._resize(clip)
        shown = self._pixels(clip, indices, resize)[order]
        grid = pixels.token_grid((resize.height, resize.width))
        features = self.model.see(still_patches(shown), grid)
        return Example(episode.id, [percentages[i] for i in order], shown, features, grid)

    def _resize(self, clip: Clip) -> Resize:
        return pixels.resize_of(clip, self.protocol.resize, self.protocol.frame_pixels)

    def _pixels(self, clip: Clip, indices: NDArray[np.int64], resize: Resize) -> Tensor:
        """(N, 3, h, w), decoded in order of time, a bounded number of frames at a time."""
        parts = []
        for start in range(0, indices.size, FRAMES_AT_ONCE):
            frames = pixels.frames_of(clip, indices[start : start + FRAMES_AT_ONCE], resize)
            parts.append(pixels.shown(clip, frames, resize, self.model.device))
        return torch.cat(parts)


class Sights:
    """What the vision tower sees for a batch of questions: an image once, however often it is shown.

    The same video under another instruction costs nothing more, a frozen one a single image. What is seen depends
    on an image's pixels alone, so only the batch's own are remembered, and each until the last question that shows it.
    """

    def __init__(self, showing: Showing, shown: Sequence[Tensor]) -> None:
        """`shown`: for each question, (1 + K, 3, h, w) uint8."""
        self.showing = showing
        self.shown = shown
        self.contents = [image_contents(images) for images in shown]
        self.seen: dict[bytes, Features] = {}

    def of(self, row: int) -> Features:
        """All images of a question's prompt, in their order. Asked for one question after the other."""
        contents, images = self.contents[row], self.shown[row]
        first = {content: place for place, content in reversed(list(enumerate(contents)))}
        new = sorted(place for content, place in first.items() if content not in self.seen)
        if new:
            grid = pixels.token_grid((images.shape[2], images.shape[3]))
            features = self.showing.model.see(still_patches(images[new]), grid)
            cells = grid[0] * grid[1]
            for i, place in enumerate(new):
                self.seen[contents[place]] = features[slice(i * cells, (i + 1) * cells)]
        own = [self.seen[content] for content in contents]
        later = {content for others in self.contents[row + 1 :] for content in others}
        self.seen = {content: features for content, features in self.seen.items() if content in later}
        return Features.join([own[0], *(e.features for e in self.showing.examples), *own[1:]])


def image_contents(images: Tensor) -> list[bytes]:
    """A name for each of (N, 3, h, w) uint8 images, equal for those of equal size and pixels."""
    size = repr(tuple(images.shape[1:])).encode()
    return [sha256(size + image.tobytes()).digest() for image in images.cpu().numpy()]


def still_patches(frames: Tensor) -> Tensor:
    """(N, 3, h, w) → (N · 4 · tokens, 1536): each still frame stands twice, to fill a temporal patch."""
    return pixels.to_patches(frames.repeat_interleave(TEMPORAL_PATCH, dim=0))
