"""Training signals for a whole dataset: python scripts/label_rewards.py --model qwen3-vl --dataset lerobot:<folder>

Leaves files that LeRobot and RLinf train on, and the curves that other labels can be made of: docs/labelling.md.
"""

from topreward.cli import label_main

if __name__ == "__main__":
    label_main()
