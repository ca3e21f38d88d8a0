"""Broken inputs by the thousand, each made anew from a seed, and a process of its own that reads them.

`python tests/support/fuzz.py KIND FIRST COUNT` reads `COUNT` mutations of one kind of input, bounded in memory and in
time for each, and prints a line of JSON before and after each, so that whoever reads along knows which one ended it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("SVT_LOG", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from places import DATA, ROOT

SECONDS = 60
"""For one input. A sound one takes a hundredth; machines that run tests are busy."""
MEMORY = 3 << 30
"""Bytes of address space beyond what the process has when it begins: the limits allow arrays of 2 GiB."""
HUGE = ("99999999999999999999", "1e308", "-1", "0", "1e-300", "NaN", "2147483648", "[]", "{}", "null", '"x"', "true")


class Kind(NamedTuple):
    """One kind of input."""

    make: Callable[[Path], list[Path]]
    """Writes a sound input into a folder; returns the files of which one is to be broken."""
    read: Callable[[Path], Any]
    """Reads it out of that folder, whole."""
    text: bool = False
    head: int | None = None
    """Where the first bytes decide: only they are broken."""
    exact: bool = False
    """Whether checksums leave no other outcome than the sound input's, or an error."""


def mutate(data: bytes, dice: random.Random, kind: Kind) -> tuple[bytes, str]:
    """(another file, what was done to it)."""
    size = min(len(data), kind.head or len(data))
    at = dice.randrange(size)
    ways = ["flip", "cut", "insert", "swap", "huge", "zeros", "double"] + ["number", "word"] * 3 * kind.text
    way = dice.choice(ways)
    out = bytearray(data)
    if way == "flip":
        places = [dice.randrange(size) for _ in range(dice.choice((1, 1, 2, 8)))]
        for place in places:
            out[place] ^= 1 << dice.randrange(8)
        return bytes(out), f"bits flipped in bytes {places}"
    if way == "cut":
        return data[:at], f"cut to {at} bytes"
    if way == "insert":
        run = dice.choice((b"\0", b"\xff", dice.randbytes(1))) * dice.choice((1, 4, 100, 5000))
        return data[:at] + run + data[at:], f"{len(run)} bytes {run[:1]!r} inserted at {at}"
    if way == "zeros":
        length = dice.choice((4, 64, 1000))
        out[at : at + length] = bytes(len(out[at : at + length]))
        return bytes(out), f"{length} bytes zeroed at {at}"
    if way == "double":
        stop = at + dice.choice((4, 32, 500))
        return data[:stop] + data[at:], f"bytes {at} to {stop} doubled"
    if way == "swap":
        other, width = dice.randrange(size), dice.choice((1, 4, 8))
        out[at : at + width], out[other : other + width] = data[other : other + width], data[at : at + width]
        return bytes(out), f"{width} bytes swapped at {at} and {other}"
    if way == "huge":
        field = dice.choice(
            (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x7f\xff\xff\xff\xff")
        )
        out[at : at + len(field)] = field
        return bytes(out), f"{field.hex()} written at {at}"
    return _mutate_text(data.decode(), dice, way)


def _mutate_text(text: str, dice: random.Random, way: str) -> tuple[bytes, str]:
    import re

    pattern = r"-?\d+(?:\.\d+)?" if way == "number" else r'"[^"\n]*"|[A-Za-z_]+'
    found = list(re.finditer(pattern, text)) or list(re.finditer(r".", text))
    place = dice.choice(found)
    new = dice.choice(HUGE) if way == "number" or dice.random() < 0.5 else dice.choice(found).group()
    return (
        text[: place.start()] + new + text[place.end() :]
    ).encode(), f"{place.group()!r} at {place.start()} is now {new}"


# --- kinds ----------------------------------------------------------------------------------------------


def _video(suffix: str, **options: Any) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        from videos import write_video

        return [write_video(folder / f"cup.{suffix}", frames=12, size=(48, 64), **options)]

    return make


def _read_video(folder: Path) -> Any:
    from topreward.video import read_video

    (path,) = folder.iterdir()
    clip = read_video(path)
    return clip.frames(np.arange(clip.num_frames))


def _pictures(suffix: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        from PIL import Image

        from videos import picture

        for number in range(3):
            Image.fromarray(picture(number, 48, 64)).save(folder / f"{number}.{suffix}")
        return [folder / f"1.{suffix}"]

    return make


def _read_pictures(folder: Path) -> Any:
    from topreward.video import read_video

    return read_video(folder, fps=5).frames([0, 1, 2])


def _hdf5(folder: Path) -> list[Path]:
    import h5py

    with h5py.File(folder / "demos.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": "open the drawer"})
        for demo in range(2):
            group = data.create_group(f"demo_{demo}")
            group["actions"] = np.zeros((4, 7))
            pixels = np.random.default_rng(demo).integers(0, 255, (4, 16, 12, 3), np.uint8)
            group.create_dataset("obs/agentview_rgb", data=pixels, compression="gzip", chunks=True)
    return [folder / "demos.hdf5"]


def _lerobot(name: str, *patterns: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        root = folder / "set"
        shutil.copytree(DATA / "lerobot" / name, root)
        return sorted(path for pattern in patterns for path in root.glob(pattern))

    return make


def _read_dataset(uri: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from topreward.datasets import open_dataset

        for episode in open_dataset(uri.format(folder=folder)):
            clip = episode.clip()
            clip.frames([0, clip.num_frames - 1])

    return read


def _listing(folder: Path) -> list[Path]:
    from PIL import Image

    from videos import picture

    rows = []
    for number in range(3):
        (folder / f"{number}").mkdir()
        Image.fromarray(picture(number, 16, 24)).save(folder / f"{number}/0.png")
        rows.append({"path": f"{number}", "instruction": "open the drawer", "success": number == 1, "fps": 10})
    path = folder / "episodes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [path]


def _protocol(folder: Path) -> list[Path]:
    shutil.copy(ROOT / "configs/dense.yaml", folder / "own.yaml")
    return [folder / "own.yaml"]


def _read_protocol(folder: Path) -> Any:
    from topreward.config import load_protocol
    from topreward.sampling import make_schedule

    return make_schedule(np.arange(300) / 30, 30, load_protocol(folder / "own.yaml"))


def _checkpoint(name: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        shutil.copytree(ROOT / "topreward/demo/checkpoint", folder, dirs_exist_ok=True)
        return [folder / name]

    return make


def _read_checkpoint(folder: Path) -> Any:
    from topreward.estimators.topreward.estimator import TOPReward

    return TOPReward.from_pretrained(folder, device="cpu")


KINDS = {
    "mp4": Kind(_video("mp4", gop=4, bframes=2), _read_video),
    "mkv": Kind(_video("mkv", gop=4, bframes=2), _read_video),
    "avi": Kind(_video("avi", codec="mjpeg", gop=None, pix_fmt="yuvj420p"), _read_video),
    "gif": Kind(_video("gif", codec="gif", gop=None, pix_fmt="rgb8", fps=10), _read_video),
    "png": Kind(_pictures("png"), _read_pictures, exact=True),
    "jpg": Kind(_pictures("jpg"), _read_pictures),
    "tif": Kind(_pictures("tif"), _read_pictures),
    "webp": Kind(_pictures("webp"), _read_pictures),
    "hdf5": Kind(_hdf5, _read_dataset("hdf5:{folder}/demos.hdf5")),
    "parquet": Kind(_lerobot("v30_images", "**/*.parquet"), _read_dataset("lerobot:{folder}/set")),
    "info.json": Kind(_lerobot("v30_images", "meta/info.json"), _read_dataset("lerobot:{folder}/set"), text=True),
    "jsonl": Kind(_listing, _read_dataset("folder:{folder}"), text=True),
    "meta.jsonl": Kind(_lerobot("v21_images", "meta/*.jsonl"), _read_dataset("lerobot:{folder}/set"), text=True),
    "yaml": Kind(_protocol, _read_protocol, text=True),
    "safetensors": Kind(_checkpoint("model.safetensors"), _read_checkpoint, head=20_000),
    "config.json": Kind(_checkpoint("config.json"), _read_checkpoint, text=True),
}


def main(name: str, first: int, count: int) -> None:
    from topreward.errors import TopRewardError

    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "sound"
        sound.mkdir()
        files = kind.make(sound)
        truth = kind.read(sound)  # imports all that reading imports, before the room for it is bounded
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever library it is in
        for seed in range(first, first + count):
            dice = random.Random(f"{name} {seed}")
            victim = dice.choice(files)
            whole = victim.read_bytes()
            broken, what = mutate(whole, dice, kind)
            print(json.dumps({"seed": seed, "what": f"{victim.name}: {what}"}), flush=True)
            victim.write_bytes(broken)
            signal.alarm(SECONDS)
            try:
                got = kind.read(sound)
                same = not kind.exact or np.array_equal(got, truth)
                outcome = None if same else "another picture"
            except TopRewardError as error:
                outcome = None if "\n" not in str(error) else f"an error of several lines: {error}"
            except BaseException:
                outcome = traceback.format_exc()
            signal.alarm(0)
            victim.write_bytes(whole)
            print(json.dumps({"seed": seed, "outcome": outcome}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
