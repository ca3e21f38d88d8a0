"""What a value costs while the video grows: a push of the stream, against scoring anew.

    OMP_NUM_THREADS=2 python benchmarks/online.py [--blocks 300] [--repeats 5] [--json benchmarks/results/online.json]

One random checkpoint, frames of noise at 256x256, all of them sampled. When the video has grown to each of some sizes:

    push     the stream's next frame, preprocessing included, timed as it comes: an odd frame, then an even one
    whole    `score` of the whole clip so far, of its last prefix alone
    last 16  the same of the last 16 frames only, as a trailing window has it

Beside the seconds stand the tokens that went through the decoder and how far each value is from `whole`'s: the stream's
is the same value, the window's is another one. The clip's frames lie in memory; nothing is decoded.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from common import machine, median, random_model, timed
from one_pass import SIZES
from topreward.config import load_protocol
from topreward.estimators.topreward import TOPReward
from topreward.estimators.topreward.stream_state import StreamValue
from topreward.files import write_atomically
from topreward.qwen.model import QwenVL
from topreward.types import Clip, Curve

FPS, SIDE, WINDOW = 2.0, 256, 16
INSTRUCTION = "pick up the cup"
BLOCKS = 300
PROTOCOL = load_protocol("dense", num_prefixes=1)  # the last prefix alone


def frame(number: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


def clip(first: int, stop: int, side: int = SIDE) -> Clip:
    """Frames [first, stop) as a clip that makes its frames when they are asked for."""
    return Clip(
        np.arange(stop - first) / FPS,
        FPS,
        side,
        side,
        lambda indices: np.stack([frame(first + int(i), side) for i in indices]),
        source="noise",
    )


def sizes_up_to(blocks: int) -> list[int]:
    """Numbers of blocks at which to look."""
    return sorted({blocks, *(n for n in (5, 10, 20, 50, 100, 150, 200, 250) if n < blocks)})


def measure(model: QwenVL, blocks: int, repeats: int, side: int = SIDE) -> list[dict[str, Any]]:
    estimator = TOPReward(model)
    stream = estimator.stream(INSTRUCTION, fps=FPS, protocol=PROTOCOL, max_blocks=blocks + repeats)
    results, number = [], 0
    value: StreamValue | None = None
    for size in sizes_up_to(blocks):
        while number < 2 * size:
            stream.push(frame(number, side))
            number += 1
        pushes: dict[str, list[float]] = {"odd": [], "even": []}
        before = stream.record.trunk_tokens + stream.record.branch_tokens
        for _ in range(repeats):
            for kind in pushes:
                shown = frame(number, side)  # made before the clock starts
                value = None

                def push(shown: NDArray[np.uint8] = shown) -> None:
                    nonlocal value
                    value = stream.push(shown)

                pushes[kind].append(timed(push))
                number += 1
        assert value is not None
        tokens = stream.record.trunk_tokens + stream.record.branch_tokens - before
        held = {"whole": clip(0, number, side), "last 16": clip(max(0, number - WINDOW), number, side)}
        held = {way: Clip.from_array(c.frames(np.arange(c.num_frames)), FPS) for way, c in held.items()}
        seconds, curves = dict[str, list[float]](), dict[str, Curve]()
        for way, of in held.items():
            curves[way] = estimator.score(of, INSTRUCTION, protocol=PROTOCOL)  # warm-up
            seconds[way] = [timed(partial(estimator.score, of, INSTRUCTION, protocol=PROTOCOL)) for _ in range(repeats)]
        whole = float(curves["whole"].values[-1])
        results.append(
            {
                "blocks": size,
                "frames": number,
                "seconds": {"push, odd": pushes["odd"], "push, even": pushes["even"], **seconds},
                "tokens": {"push": tokens / (2 * repeats)}
                | {way: sum(curve.provenance["tokens"].values()) for way, curve in curves.items()},
                "from_whole": {
                    "push": abs(float(value) - whole),
                    "last 16": abs(float(curves["last 16"].values[-1]) - whole),
                },
                "cache_bytes": stream.cache.bytes,
            }
        )
    return results


def show(results: list[dict[str, Any]], console: Console) -> None:
    table = Table("blocks", "way", "median s", "tokens", "nats from whole")
    for r in results:
        for way, seconds in r["seconds"].items():
            kind = "push" if way.startswith("push") else way
            away = r["from_whole"].get(kind)
            table.add_row(
                str(r["blocks"]) if way == "push, odd" else "",
                way,
                f"{median(seconds):.4f}",
                f"{r['tokens'][kind]:.0f}",
                "" if away is None else f"{away:.1e}",
                end_section=way == list(r["seconds"])[-1],
            )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=list(SIZES), default="qwen3-vl", help="hybrid: a random Qwen3.5")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="temporal patches that the video grows to")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way (median)")
    parser.add_argument("--side", type=int, default=SIDE, help="px of a frame's side")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    console = Console()
    with torch.inference_mode():
        model = random_model(*SIZES[options.arch])
        results = measure(model, options.blocks, options.repeats, options.side)
    show(results, console)
    if options.json:
        report = {
            "machine": machine(),
            "architecture": options.arch,
            "parameters": sum(p.numel() for p in model.model.parameters()),
            "side": options.side,
            "results": results,
        }
        write_atomically(options.json, json.dumps(report, indent=1) + "\n")
        console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
