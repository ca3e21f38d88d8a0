"""The slow twin: a plain full forward of the model per prefix and instruction.

In goes a Call, out come the answers that the one pass must give as well. Shares with it the resized pixels only.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from topreward.estimators.topreward import prompts
from topreward.estimators.topreward.call import Answers, Call
from topreward.qwen import pixels
from topreward.qwen.layout import prompt_text
from topreward.sampling import TEMPORAL_PATCH


@torch.inference_mode()
def prefix_by_prefix(call: Call) -> Answers:
    """(D, I, 2) log-probabilities, each prefix's whole prompt run through the model's own `forward`."""
    out = np.empty((len(call.counts), len(call.instructions), 2))
    if call.describes:
        call.described(_describe(call))
    for row, (count, questions) in enumerate(zip(call.counts, call.questions(), strict=True)):
        patches = _patches(call, count)
        for column, question in enumerate(questions):
            prompt = prompt_text(call.opening, call.schedule.seconds[:count], call.grid, question)
            logits = call.model.plain_forward(prompt, patches, call.grid)
            out[row, column] = logits.log_softmax(-1)[list(call.answers)].cpu().numpy()
    return out


def _patches(call: Call, count: int) -> Tensor:
    frames = call.frames(call.schedule.indices[:count])
    if count % TEMPORAL_PATCH:
        frames = np.concatenate([frames, frames[-1:]])
    return pixels.to_patches(call.pixels(frames))


def _describe(call: Call) -> list[str | None]:
    """transformers' own greedy answer for each prefix, or once for the whole video."""
    request = prompts.description_request(call.protocol.wording)
    once = call.protocol.description == "once"
    limit = call.protocol.max_description_tokens
    texts: list[str | None] = []
    for count in call.counts[-1:] if once else call.counts:
        prompt = prompt_text(call.opening, call.schedule.seconds[:count], call.grid, request)
        texts.append(call.model.plain_generate(prompt, _patches(call, count), call.grid, max_new_tokens=limit))
    return texts * len(call.counts) if once else texts
