"""The off-the-shelf way: qwen-vl-utils and transformers' own processor, one prefix after the other.

In goes a benchmark's workload, out come its values: what a user gets who follows the model card.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import transformers
from numpy.typing import NDArray
from PIL import Image
from qwen_vl_utils import process_vision_info

from common import TOKENIZER
from topreward.qwen.pixels import SQUARE, SQUARE_PIL

if TYPE_CHECKING:
    from ways import Workload

# The chat template with all that a bare prompt does not have left out: a user turn's opening and its content.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


@lru_cache(maxsize=4)
def processor(tokenizer_file: Path = TOKENIZER) -> Any:
    """The stock processor around a tokenizer; by default the benchmarks' one."""
    # 4.57 insists on Qwen's own class; 5.x would rebuild that class' tokenizer instead of reading the file.
    before_5 = int(transformers.__version__.split(".")[0]) < 5
    cls = transformers.Qwen2TokenizerFast if before_5 else transformers.PreTrainedTokenizerFast
    tokenizer = cls(tokenizer_file=str(tokenizer_file))
    for name in ("image", "video"):
        setattr(tokenizer, f"{name}_token", f"<|{name}_pad|>")
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>"))
    video = transformers.Qwen3VLVideoProcessor(size={"shortest_edge": 4096, "longest_edge": 25_165_824})
    return transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=16),
        tokenizer=tokenizer,
        video_processor=video,
        chat_template=TEMPLATE,
    )


def stock_inputs(
    frames: NDArray[np.uint8], indices: NDArray[np.int64], fps: float, question: str, tokenizer: Path = TOKENIZER
) -> Any:
    """(n, H, W, 3) frames of one prefix → what the stock processor gives the model."""
    images = [Image.fromarray(f).resize((SQUARE_PIL, SQUARE_PIL), Image.Resampling.BICUBIC) for f in frames]
    if len(images) % 2:  # qwen-vl-utils fills the last patch, but not its index; a single frame raises
        images.append(images[-1])
        indices = np.append(indices, indices[-1])
    # Sizes named, or qwen-vl-utils would choose a larger one for a short video.
    video = {"type": "video", "video": images, "sample_fps": 2.0, "resized_height": SQUARE, "resized_width": SQUARE}
    content = [video, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    text = processor(tokenizer).apply_chat_template(messages, tokenize=False)
    _, videos = process_vision_info(messages, image_patch_size=16)
    metadata = transformers.video_utils.VideoMetadata(
        total_num_frames=int(indices[-1]) + 1, fps=fps, frames_indices=list(map(int, indices))
    )
    return processor(tokenizer)(
        text=[text],
        videos=videos,
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
    )


def stock_values(work: Workload) -> NDArray[np.float64]:
    """(D, 2) log-probabilities of the two answers, one prefix after the other."""
    out = []
    for count in work.counts:
        inputs = stock_inputs(work.frames[:count], work.schedule.indices[:count], 2.0, work.question)
        logits = work.model.model(**inputs, logits_to_keep=1, use_cache=False).logits[0, -1].float()
        out.append(logits.log_softmax(-1)[list(work.answers)].double().numpy())
    return np.array(out)
