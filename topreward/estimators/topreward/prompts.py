"""What the model is told about the video, and which answers are scored.

In go a wording, an instruction and perhaps a description; out come strings. Pure text: tokens are the
business of `qwen.layout`. The strings themselves stand in configs/wordings/.
"""

from __future__ import annotations

import re

from topreward.config import Wording
from topreward.errors import PromptError


def question(
    wording: Wording,
    instruction: str,
    *,
    chat_template: bool = False,
    description: str | None = None,
    thinks: bool = False,
) -> str:
    """All text after the video, up to the place where the answer is read.

    With a `description` the description variant of the wording is used. `thinks`: the checkpoint's chat template opens
    a thought before the answer, which the wording closes. Raises PromptError on an empty instruction, and where a
    thought is not closed.
    """
    if not instruction.strip():
        raise PromptError("the instruction is empty")
    template = wording.question if description is None else wording.described_question
    text = _fill(template, {"instruction": instruction, "description": description or ""})
    return text + _closing(wording, thinks) if chat_template else text


def answers(wording: Wording, *, chat_template: bool = False) -> tuple[str, str]:
    """The scored answers (true, false). After the chat template's line break they lose their leading space."""
    if chat_template:
        return wording.answer_true.lstrip(" "), wording.answer_false.lstrip(" ")
    return wording.answer_true, wording.answer_false


def description_request(wording: Wording) -> str:
    """All text after the video when the model is asked for a description; always in the chat template."""
    return wording.description_request + wording.chat_closing


def _closing(wording: Wording, thinks: bool) -> str:
    if not thinks or "</think>" in wording.chat_closing:
        return wording.chat_closing
    if "</think>" not in wording.closed_thinking:
        raise PromptError(
            "this checkpoint's chat template opens a thought, so the next token is no answer: the wording's "
            f"closed_thinking must close it, and is {wording.closed_thinking!r}"
        )
    return wording.chat_closing + wording.closed_thinking


def _fill(template: str, values: dict[str, str]) -> str:
    # One pass: braces inside an instruction or a description are text, not fields.
    return re.sub(r"\{(instruction|description)\}", lambda match: values[match.group(1)], template)
