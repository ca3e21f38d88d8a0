"""Write the small datasets in `tests/data/lerobot/` with LeRobot itself, and what LeRobot reads back from them.

Made by hand, never in CI, in an environment of its own (see README.md here). One run writes the datasets of the
version of LeRobot that is installed: 0.4.x writes v3.0, 0.3.x writes v2.1.

    python tests/data/make_lerobot_fixtures.py tests/data/lerobot [--full elsewhere.npz]

Every picture says in its lower rows which episode, frame and camera it is, in black and white squares that
survive compression. `expected.json` and `expected.npz` beside each dataset hold what LeRobot returned; `--full`
also keeps every pixel it returned, too large to commit.
"""

import argparse
import inspect
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import lerobot.datasets.lerobot_dataset as writer
from lerobot.datasets.lerobot_dataset import LeRobotDataset

FPS = 10
LENGTHS = (12, 7, 9, 5)
TASKS = ("pick up the red cup", "open the drawer", "pick up the red cup", "put the lid on the pot")
CAMERAS = {"observation.images.top": (64, 96), "observation.images.wrist": (48, 64)}
FIRST_TASK = "lift the lid"
"""What the first two frames of episode 3 are told in the image-backed dataset: an episode of two tasks."""
KEPT = 2
"""The frame of each episode whose every pixel is committed."""


def picture(episode: int, frame: int, camera: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a gradient, a square that moves, and 16 bits that name the picture."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 60 * episode + 30)], axis=2)
    left = frame * (width - 12) // max(LENGTHS)
    image[4:16, left : left + 12] = (230, 40, 40) if camera == 0 else (40, 40, 230)
    bits = [(episode >> b) & 1 for b in range(4)] + [(frame >> b) & 1 for b in range(6)] + [camera, 1, 0, 0, 1, 1]
    for position, bit in enumerate(bits):
        row, column = divmod(position, 8)
        top, start = height - 16 + 8 * row, column * width // 8
        image[top : top + 8, start : start + width // 8] = 255 * bit
    return image.astype(np.uint8)


def write(root: Path, kind: str, codec: str | None) -> None:
    """One dataset: four episodes, two cameras of different size, the file sizes so small that files are split."""
    features = {
        key: {"dtype": kind, "shape": (*size, 3), "names": ["height", "width", "channels"]}
        for key, size in CAMERAS.items()
    }
    features["action"] = {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}
    options = {"vcodec": codec} if codec and "vcodec" in inspect.signature(LeRobotDataset.create).parameters else {}
    if codec and not options:  # 0.3.x has no option for it
        encode = writer.encode_video_frames
        writer.encode_video_frames = lambda *args, **kwargs: encode(*args, **{**kwargs, "vcodec": codec})
    dataset = LeRobotDataset.create(root.name, FPS, features, root=root, use_videos=kind == "video", **options)
    if codec == "h264" and hasattr(dataset.meta, "update_chunk_settings"):
        # A new video file after about every second episode, a new data file after each.
        dataset.meta.update_chunk_settings(chunks_size=2, data_files_size_in_mb=1e-4, video_files_size_in_mb=6e-3)
    for episode, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        for frame in range(length):
            values = {key: picture(episode, frame, camera, *size) for camera, (key, size) in enumerate(CAMERAS.items())}
            values["action"] = np.array([episode, frame], dtype=np.float32)
            told = FIRST_TASK if kind == "image" and episode == 3 and frame < 2 else task
            if "task" in inspect.signature(dataset.add_frame).parameters:
                dataset.add_frame(values, task=told)
            else:
                dataset.add_frame({**values, "task": told})
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()
    if codec and not options:
        writer.encode_video_frames = encode
    shutil.rmtree(root / "images", ignore_errors=True)


def read_back(root: Path) -> tuple[list[dict], dict[str, np.ndarray]]:
    """What LeRobot returns: one record a frame, and by camera all pixels as a list of (H, W, 3) uint8."""
    dataset = LeRobotDataset(root.name, root=root, video_backend="pyav")
    records, pixels = [], {key: [] for key in CAMERAS}
    for row in range(len(dataset)):
        item = dataset[row]
        records.append(
            {
                "index": int(item["index"]),
                "episode_index": int(item["episode_index"]),
                "frame_index": int(item["frame_index"]),
                "timestamp": float(item["timestamp"]),
                "task": item["task"],
            }
        )
        for key in CAMERAS:
            array = item[key].numpy()  # (3, H, W) float32 in [0, 1]
            pixels[key].append(np.round(array * 255).astype(np.uint8).transpose(1, 2, 0))
    return records, {key: np.stack(values) for key, values in pixels.items()}


def blocks(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) → (T, H/16, W/16, 3) uint8: the mean of every 16x16 px block."""
    count, height, width, _ = frames.shape
    means = frames.reshape(count, height // 16, 16, width // 16, 16, 3).mean(axis=(2, 4))
    return np.round(means).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", type=Path)
    arguments = parser.parse_args()
    layout = "v30" if version("lerobot") >= "0.4" else "v21"
    full = {}
    for name, kind, codec in (("av1", "video", "libsvtav1"), ("h264", "video", "h264"), ("images", "image", None)):
        root = arguments.folder / f"{layout}_{name}"
        shutil.rmtree(root, ignore_errors=True)
        write(root, kind, codec)
        records, pixels = read_back(root)
        kept = np.cumsum(LENGTHS) - LENGTHS + KEPT
        arrays = {"kept": kept}
        for key, frames in pixels.items():
            full[f"{root.name}/{key}"] = frames
            arrays[f"{key}/blocks"] = blocks(frames)
            arrays[f"{key}/pixels"] = frames[kept]
        np.savez_compressed(root / "expected.npz", **arrays)
        facts = {"lerobot": version("lerobot"), "av": version("av"), "codec": codec, "frames": records}
        (root / "expected.json").write_text(json.dumps(facts, indent=None) + "\n")
        print(root.name, sum(path.stat().st_size for path in root.rglob("*") if path.is_file()), "bytes")
    if arguments.full:
        np.savez_compressed(arguments.full, **full)


if __name__ == "__main__":
    main()
