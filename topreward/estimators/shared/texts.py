"""Which texts from outside may go into a prompt. Pure text: knows no tokenizer and no model."""

from __future__ import annotations

from collections.abc import Iterable

from topreward.errors import PromptError


def refuse_special_tokens(text: str, special_tokens: Iterable[str], *, what: str = "instruction") -> None:
    """Raise PromptError if `text` spells a special token: it would be read as structure, not as words."""
    for token in special_tokens:
        if token in text:
            raise PromptError(f"the {what} contains the special token {token!r}: {text!r}")
