"""Train the demo checkpoint from nothing and write it where the package looks for it.

    python scripts/train_demo_model.py                  # about half an hour on two cores
    python scripts/train_demo_model.py --out some/folder  # somewhere else

See topreward/demo/README.md for what it learns and how.
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

from topreward.demo import checkpoint_folder
from topreward.demo.schooling import Plan, train
from topreward.demo.tiny import save


def main(
    out: Path | None = None, log: Path | None = None, keep: Path | None = None, workers: int = 2, device: str = "auto"
) -> None:
    """Train and save.

    Args:
        out: folder of the checkpoint; by default the package's own.
        log: file that the log goes to as well.
        keep: folder for the weights after each lesson; what lies there is not trained again.
        workers: processes that draw the footage.
        device: cpu, cuda, or auto: cuda where there is one.
    """
    lines: list[str] = []

    def write(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if log is not None:
            log.write_text("\n".join(lines) + "\n", encoding="utf-8")

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    plan = Plan()
    write(str(plan))
    model = train(plan, log=write, workers=workers, keep=keep, device=device)
    folder = out or checkpoint_folder()
    save(model, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    write(f"{folder.name}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    tyro.cli(main)
