"""Which texts from outside may go into a prompt. Pure text: knows no tokenizer and no model."""

from __future__ import annotations

from collections.abc import Iterable

from topreward.errors import PromptError
from topreward.limits import hold
from topreward.types import is_encodable


def refuse_special_tokens(text: str, special_tokens: Iterable[str], *, what: str = "instruction") -> None:
    """Raise PromptError if `text` spells a special token: it would be read as structure, not as words.

    Nor may it be longer than the limit (a megabyte of it asks for 30 GB), or no text at all.
    """
    if not isinstance(text, str):
        raise PromptError(f"the {what} is a {type(text).__name__}, want a text")
    hold("max_instruction", len(text), f"the {what}", error=PromptError)
    if not is_encodable(text):
        raise PromptError(f"the {what} {text[:200]!a} holds what is no character")
    for token in special_tokens:
        if token in text:
            raise PromptError(f"the {what} contains the special token {token!r}: {text!r}")
