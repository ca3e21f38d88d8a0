"""Token ids and M-RoPE positions of a prompt with still images.

In go the texts around the images and each image's grid; out come integer arrays. Pure numpy, no transformers,
like `layout` beside it: a library upgrade cannot change the prompt. A prompt is laid out as Qwen3-VL's chat
template and processor have it:

    text  <|vision_start|> <|image_pad|> x h·w <|vision_end|>  text  …  text
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from topreward.errors import PromptError
from topreward.qwen.layout import VISION_END, VISION_START, Encode, Tokens, VisionTokens, Writer

# Raised whenever a prompt of the same wording would be laid out with other tokens or positions.
IMAGE_LAYOUT_VERSION = 1

IMAGE_PAD = "<|image_pad|>"

Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """One whole prompt with its images."""

    tokens: Tokens
    texts: tuple[str, ...]
    """(n + 1,) around the images."""
    grids: tuple[Grid, ...]
    """(n,) visual tokens of each image, (height, width)."""

    @property
    def next_position(self) -> int:
        """M-RoPE position of the first token of the answer."""
        return int(self.tokens.positions[:, -1].max()) + 1

    @property
    def visual_tokens(self) -> int:
        return sum(height * width for height, width in self.grids)

    @property
    def text(self) -> str:
        """The prompt as one string: what a plain forward is given."""
        images = [VISION_START + IMAGE_PAD * (h * w) + VISION_END for h, w in self.grids]
        return "".join(text + image for text, image in zip(self.texts, [*images, ""], strict=True))


def lay_out_images(encode: Encode, image: VisionTokens, *, texts: Sequence[str], grids: Sequence[Grid]) -> ImagePrompt:
    """Lay out a prompt.

    `image`: ids of the tokens around and inside an image. `texts`: (n + 1,), the first and the last not empty.
    `grids`: (n,) visual tokens (height, width). Raises PromptError where they do not fit together.
    """
    if len(texts) != len(grids) + 1 or not texts[-1]:
        raise PromptError(f"{len(texts)} texts around {len(grids)} images, want one more, and a text at the end")
    writer = Writer(image, (1, 1))
    for text, grid in zip(texts, grids, strict=False):
        # Special tokens stand between text and image: a tokenizer never joins across them.
        writer.text(encode(text))
        writer.grid = grid
        writer.block()
    writer.text(encode(texts[-1]))
    return ImagePrompt(writer.tokens(), tuple(texts), tuple(grids))
