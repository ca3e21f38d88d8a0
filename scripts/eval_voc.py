"""VOC of estimators beside their controls: python scripts/eval_voc.py --model qwen3-vl --dataset lerobot:<folder or id>

Without arguments: a demonstration that needs no GPU and no download. docs/evaluation.md says what the tables mean.
"""

from topreward.cli import eval_main

if __name__ == "__main__":
    eval_main()
