"""LeRobot's own TOPReward labeller beside ours: the same LeRobot dataset, the same demo checkpoint, one process.

    make bench-lerobot

Needs LeRobot 0.6.1 beside topreward, on Python 3.12. End to end: from opening the dataset to LeRobot's progress file on
disk, the model loaded before, one thread on both sides. A second row has loading in it, each in a process of its own.
LeRobot's default is a value per raw frame, each from a forward over the whole prefix; `--num-samples 15` is the paper's
number. Ours runs the `paper` protocol: sampled at 2 frames a second, prefixes at the same places. The two do not show
the model the same frames (theirs are all raw frames, stamped as 2 fps), so their values differ by more than rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SAMPLES = {"a value per frame": 0, "15 prefixes": 15}
SIDES = ("lerobot", "topreward")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, nargs="+", default=[4, 40])
    parser.add_argument("--repeats", type=int, default=3, help="of ours; LeRobot's side runs once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=SIDES, help="one side alone, once, in this process: for the row with loading")
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--dataset", type=Path)
    chosen = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_LEROBOT_HOME", tempfile.gettempdir())
    import torch

    torch.set_num_threads(1)
    if chosen.side:
        with tempfile.TemporaryDirectory() as folder:
            way: Lerobot | Ours = Lerobot(chosen.dataset) if chosen.side == "lerobot" else Ours(chosen.dataset)
            way.label(chosen.samples, Path(folder))
        return
    result = _measure(chosen)
    print(json.dumps(result, indent=1))
    if chosen.json:
        from topreward.files import write_atomically

        write_atomically(chosen.json, json.dumps(result, indent=1) + "\n")


def _measure(chosen: argparse.Namespace) -> dict[str, Any]:
    from common import machine, median
    from topreward.demo.episodes import demo_episodes
    from topreward.demo.write import write_lerobot_dataset

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in chosen.episodes:
            root = write_lerobot_dataset(demo_episodes(count, seed=7), Path(folder) / f"set-{count}")
            theirs, ours = Lerobot(root), Ours(root)
            for name, samples in SAMPLES.items():
                out = Path(folder) / f"out-{count}-{samples}"
                seconds = {
                    "lerobot": [theirs.label(samples, out / "theirs")],
                    "topreward": [ours.label(samples, out / f"ours-{i}") for i in range(chosen.repeats)],
                }
                row: dict[str, Any] = {"episodes": count, "values": name, "frames": ours.frames, "seconds": seconds}
                row["times_faster"] = median(seconds["lerobot"]) / median(seconds["topreward"])
                if count == min(chosen.episodes):
                    row["with_loading"] = {side: _with_loading(side, root, samples) for side in SIDES}
                rows.append(row)
                print(f"{count} episodes, {name}: {row['times_faster']:.1f} x", file=sys.stderr)
    from importlib.metadata import version

    return {"machine": machine() | {"lerobot": version("lerobot")}, "rows": rows}


def _with_loading(side: str, root: Path, samples: int) -> float:
    """s of a whole process."""
    start = time.perf_counter()
    arguments = [sys.executable, __file__, "--side", side, "--samples", str(samples), "--dataset", str(root)]
    subprocess.run(arguments, check=True, capture_output=True)
    return time.perf_counter() - start


class Lerobot:
    """`lerobot.rewards.topreward.compute_rabc_weights`, its model loaded once by its own code."""

    def __init__(self, root: Path) -> None:
        from lerobot.rewards.topreward import compute_rabc_weights as labeller
        from lerobot.rewards.topreward.configuration_topreward import TOPRewardConfig

        from topreward.demo import checkpoint_folder
        from topreward.demo.write import CAMERA_KEY

        self.root, self.labeller = root, labeller
        self.config = Path(tempfile.mkdtemp(prefix="topreward-bench-"))
        # The key of the camera can be told in a config file alone; fp32, as ours runs on a CPU.
        given = TOPRewardConfig(
            vlm_name=str(checkpoint_folder()), image_key=CAMERA_KEY, torch_dtype="float32", device="cpu"
        )
        given.save_pretrained(self.config)
        self.model = labeller.TOPRewardModel.from_pretrained(str(self.config))
        self.opened = 0.0

    def label(self, samples: int, folder: Path) -> float:
        """s from opening the dataset to the file. `samples`: 0 = a value per frame."""
        labeller, root = self.labeller, self.root
        read, model = labeller.LeRobotDataset, labeller.TOPRewardModel

        def opening(*_: Any, **options: Any) -> Any:
            self.opened = time.perf_counter()
            return read(repo_id="demo", root=root, **options)

        class Loaded:
            from_pretrained = staticmethod(lambda _: self.model)

        labeller.LeRobotDataset, labeller.TOPRewardModel = opening, Loaded
        try:
            labeller.compute_topreward_progress(
                "demo",
                reward_model_path=str(self.config),
                output_path=str(folder / "progress.parquet"),
                device="cpu",
                num_samples=samples or None,
            )
        finally:
            labeller.LeRobotDataset, labeller.TOPRewardModel = read, model
        return time.perf_counter() - self.opened


class Ours:
    """What `topreward label` does, its model loaded once."""

    def __init__(self, root: Path) -> None:
        from topreward.config import load_protocol
        from topreward.estimators.gvl.protocol import load_gvl_protocol
        from topreward.jobs.scorers import ModelSetup

        self.root, self.frames = root, 0
        gvl = load_gvl_protocol("gvl-demo")
        self.setups = {
            samples: ModelSetup(
                ("topreward",), load_protocol("paper", num_prefixes=samples), gvl, {"name": "demo", "device": "cpu"}
            )
            for samples in SAMPLES.values()
        }
        self.loaded = {samples: setup() for samples, setup in self.setups.items()}

    def label(self, samples: int, folder: Path) -> float:
        """s from opening the dataset to LeRobot's file, the curves, all labels and results among it."""
        from topreward.evaluation import Folder, Plan, evaluate
        from topreward.jobs.inputs import Inputs
        from topreward.jobs.stored import open_stored
        from topreward.labels.derive import derive
        from topreward.labels.export import export_lerobot, open_labels
        from topreward.labels.settings import LabelSettings
        from topreward.labels.write import write_labels

        start = time.perf_counter()
        inputs = Inputs(dataset=f"lerobot:{self.root}")
        plan = Plan(("topreward",), controls=False)
        with Folder(folder) as kept:
            settings = {**self.setups[samples].settings(), "dataset": inputs.settings()}
            evaluate(lambda *_: self.loaded[samples], inputs, plan, kept, settings=settings)
            labels = derive(open_stored(folder), "topreward", LabelSettings(column="progress"))
            write_labels(labels, folder)
            self.frames = export_lerobot(open_labels(folder), folder / "progress.parquet").rows
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
