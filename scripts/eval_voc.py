"""VOC over videos or a dataset: python scripts/eval_voc.py --model qwen3-vl --videos a.mp4 --instruction "…" """

from topreward.cli import eval_main

if __name__ == "__main__":
    eval_main()
