"""Make goldens/qwen3_ids.json: ids of the project's prompts under the real Qwen3 tokenizer.

python tests/make_token_goldens.py path/to/Qwen3-VL/tokenizer.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from topreward.config import load_wording
from topreward.estimators.topreward import prompts
from topreward.qwen.layout import prompt_text

INSTRUCTIONS = [
    "pick up the cup",
    "Fold the towel.",
    "don't spill 2 litres of café au lait",
    "把杯子放到盘子上",
    " open  it",
]
SECONDS = np.array([0.0, 0.5, 9.5, 12.25, 100.0])


def texts() -> dict[str, str]:
    """The prompts by name; odd counts, so that the last block is a padded one."""
    wording = load_wording("topreward")
    out = {}
    for i, instruction in enumerate(INSTRUCTIONS):
        for chat in (False, True):
            question = prompts.question(wording, instruction, chat_template=chat)
            out[f"{i} {'chat' if chat else 'plain'}"] = prompt_text(wording.opening, SECONDS, (1, 2), question)
    described = prompts.question(wording, INSTRUCTIONS[0], description="A robot moves.")
    out["described"] = prompt_text(wording.opening, SECONDS[:1], (1, 1), described)
    out["request"] = prompt_text(wording.opening, SECONDS[:2], (1, 1), prompts.description_request(wording))
    return out


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    tokenizer = Tokenizer.from_file(sys.argv[1])
    goldens = {name: tokenizer.encode(text, add_special_tokens=False).ids for name, text in texts().items()}
    goldens["answers"] = [tokenizer.encode(a).ids[0] for a in (" True", " False", "True", "False")]
    pieces = {i: tokenizer.id_to_token(i) for ids in goldens.values() for i in ids}
    target = Path(__file__).parent / "goldens" / "qwen3_ids.json"
    target.write_text(json.dumps({"ids": goldens, "pieces": pieces}, ensure_ascii=False) + "\n")
