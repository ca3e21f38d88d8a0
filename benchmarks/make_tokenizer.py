"""Cut the part out of Qwen3's tokenizer that the benchmarks' prompts need, with its real token ids.

    python benchmarks/make_tokenizer.py path/to/Qwen3-VL/tokenizer.json

Writes tokenizer.json beside this file: same pre-tokenisation, one entry per word, nothing else. So benchmarks
have the real prompt lengths without a download; a text with any other word is an error, not a wrong count.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from topreward.config import load_wording

INSTRUCTIONS = ("pick up the cup", "open the drawer", "close the drawer", "put the cup on the plate",
                "push the block", "lift the lid", "fold the towel", "wipe the table")  # fmt: skip


def cut(source: Path) -> Tokenizer:
    """The words of all wordings' questions with these instructions, and of timestamps."""
    real = Tokenizer.from_file(str(source))
    wording = load_wording("topreward")
    texts = [wording.question.replace("{instruction}", i) for i in INSTRUCTIONS]
    texts += [wording.opening, wording.chat_closing, "<0123456789.0 seconds>", " True", " False", "True", "False"]
    vocabulary: dict[str, int] = {}
    for text in texts:
        encoding = real.encode(text, add_special_tokens=False)
        words = real.pre_tokenizer.pre_tokenize_str(text)
        if "<|" not in text and len(words) != len(encoding.ids):
            raise SystemExit(f"{text!r} is not one token a word: {encoding.tokens}")
        vocabulary |= dict(zip(encoding.tokens, encoding.ids, strict=True))
    special = {i: t.content for i, t in real.get_added_tokens_decoder().items() if t.special}
    small = Tokenizer(
        WordLevel({w: i for w, i in vocabulary.items() if i not in special} | _gaps(special), unk_token="")
    )
    small.normalizer, small.pre_tokenizer, small.decoder = real.normalizer, real.pre_tokenizer, real.decoder
    small.add_special_tokens([AddedToken(content, normalized=False) for content in special.values()])
    return small


def _gaps(special: dict[int, str]) -> dict[str, int]:
    # Special tokens stand in the vocabulary as well, so that they keep their ids.
    return {content: i for i, content in special.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    cut(Path(sys.argv[1])).save(str(Path(__file__).parent / "tokenizer.json"))
