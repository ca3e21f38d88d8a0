"""The `topreward` command: parse, call, print. No logic of its own; a file per command.

    topreward score cup.mp4 "pick up the cup" --model qwen3-vl
    topreward eval --model qwen3-vl --videos a.mp4 b.mp4 --instruction "pick up the cup"
    topreward label --model qwen3-vl --dataset lerobot:/data/my_set

scripts/score_video.py, scripts/eval_voc.py and scripts/label_rewards.py are the same functions. Every expected failure
is one line on stderr and exit status 2; `--debug` shows the traceback.
"""

from topreward.cli.main import eval_main, label_main, main, score_main

__all__ = ["eval_main", "label_main", "main", "score_main"]
