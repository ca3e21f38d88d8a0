"""A tabletop that exists only in code: six tasks, six kinds of episode, true progress for every frame.

In: a seed. Out: episodes of a small robot arm with pictures, labels and true progress, as
`topreward.Episode`, as mp4 files or as a LeRobot dataset. The world knows no model; beside it lies a tiny
checkpoint that was taught to read it (README.md here), with `footage`, `lessons`, `seeing`, `training`,
`schooling` and `tiny`, which made it and which alone import torch.
"""

from pathlib import Path


def checkpoint_folder() -> Path:
    """Where the demo checkpoint lies: what `--model demo` loads."""
    return Path(__file__).parent / "checkpoint"
