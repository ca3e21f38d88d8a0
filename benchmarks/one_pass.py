"""What a whole progress curve costs, against one forward over the video.

    python benchmarks/one_pass.py [--repeats 5] [--json benchmarks/results/one_pass.json]

On one random checkpoint and one clip of 64 sampled frames at 256x256, in one process, in turn:

    floor      one full-video forward: our trunk pass and one tail, the same kernels, one logit row
    ours       trunk pass and one branch pass over all prefixes
    append     append-and-crop: one cache grown prefix by prefix, cropped after each answer
    recompute  a plain full forward of the model per distinct prefix, vision included
    stock      recompute through qwen-vl-utils and the stock processor, frames to values

All but `stock` start from the same prepared patches. Ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import DynamicCache

from common import interleaved, machine, median, peak_rss_over, random_model
from topreward import prompts
from topreward.config import Protocol, load_protocol
from topreward.files import write_atomically
from topreward.qwen import pixels
from topreward.qwen.layout import Layout, Tokens, lay_out, prompt_text
from topreward.qwen.model import Features, QwenVL
from topreward.sampling import make_schedule

TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
VISION = {
    "depth": 6,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_heads": 4,
    "deepstack_visual_indexes": [1, 3, 5],
}
FRAMES, SIDE, FPS = 64, 256, 2.0
INSTRUCTION = "pick up the cup"

WORKLOADS: dict[str, Protocol] = {
    "paper": load_protocol("paper"),
    "patches, 15": load_protocol("dense"),
    "patches, all": load_protocol("dense", num_prefixes=0),
}


@dataclass
class Workload:
    """One clip under one protocol, ready to be scored in every way."""

    model: QwenVL
    protocol: Protocol

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.frames = rng.integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
        self.schedule = make_schedule(np.arange(FRAMES) / FPS, FPS, self.protocol)
        assert self.schedule.indices.size == FRAMES
        self.counts = [int(c) for c in self.schedule.distinct_counts]
        self.grid = pixels.token_grid((SIDE, SIDE))
        self.cells = self.grid[0] * self.grid[1]
        self.question = prompts.question(self.protocol.wording, INSTRUCTION)
        self.answers = tuple(self.model.answer_id(a) for a in prompts.answers(self.protocol.wording))
        self.layout = self.lay_out(self.counts)
        self.patches = self.to_patches(self.frames)
        odd = np.array(self.layout.odd_counts, dtype=np.int64) - 1
        self.odd_patches = self.to_patches(self.frames[np.repeat(odd, 2)]) if odd.size else self.patches[:0]
        self.both_patches = torch.cat([self.patches, self.odd_patches])

    def lay_out(self, counts: list[int]) -> Layout:
        return lay_out(
            self.model.encode,
            self.model.vision_tokens,
            opening=self.protocol.wording.opening,
            seconds=self.schedule.seconds,
            grid=self.grid,
            counts=counts,
            questions=[[self.question]] * len(counts),
        )

    def to_patches(self, frames: NDArray[np.uint8]) -> Tensor:
        if self.protocol.resize == "square":
            return pixels.to_patches(pixels.square_pixels(frames))
        return pixels.to_patches(pixels.aspect_pixels(frames, (SIDE, SIDE)))

    def _pass(self, layout: Layout, patches: Tensor) -> NDArray[np.float64]:
        features = self.model.see(patches, self.grid)
        cut = layout.trunk_blocks * self.cells
        trunk = self.model.prefill(layout, features[slice(0, cut)])
        hidden = self.model.branch(layout, trunk, features[slice(cut, None)])
        return self.model.log_probs(hidden, self.answers)[:, 0]

    def floor(self) -> NDArray[np.float64]:
        return self._pass(self.lay_out([FRAMES]), self.patches)

    def ours(self) -> NDArray[np.float64]:
        return self._pass(self.lay_out(self.counts), self.both_patches)

    def recompute(self) -> NDArray[np.float64]:
        out = []
        for count in self.counts:
            prompt = prompt_text(self.protocol.wording.opening, self.schedule.seconds[:count], self.grid, self.question)
            patches = self.patches[: count // 2 * 4 * self.cells]
            if count % 2:
                row = self.layout.odd_counts.index(count) * 4 * self.cells
                patches = torch.cat([patches, self.odd_patches[row : row + 4 * self.cells]])
            logits = self.model.plain_forward(prompt, patches, self.grid)
            out.append(logits.log_softmax(-1)[list(self.answers)].double().numpy())
        return np.array(out)

    def append(self) -> NDArray[np.float64]:
        """Grow one cache block by block; after each answer crop the branch off again."""
        layout, model = self.layout, self.model
        cache, done, seen, odd_row, out = DynamicCache(), 0, 0, 0, []
        for branch, count in zip(layout.branches, self.counts, strict=True):
            blocks = count // 2 - seen
            if blocks:
                features = model.see(self.patches[seen * 4 * self.cells : (seen + blocks) * 4 * self.cells], self.grid)
                self._append(cache, layout.trunk, done, branch.trunk_length, features)
                done, seen = branch.trunk_length, seen + blocks
            padded: Features | None = None
            if count % 2:
                padded = model.see(self.odd_patches[odd_row : odd_row + 4 * self.cells], self.grid)
                odd_row += 4 * self.cells
            hidden = self._append(cache, layout.branch, branch.start, branch.stop, padded)
            out.append(model.log_probs(hidden[:, -1], self.answers)[0])
            if done:
                cache.crop(-len(branch))  # newest transformers takes only negative lengths
            else:
                cache = DynamicCache()
        return np.array(out)

    def _append(self, cache: Any, tokens: Tokens, start: int, stop: int, features: Features | None) -> Tensor:
        part = Tokens(tokens.ids[start:stop], tokens.positions[:, start:stop], tokens.visual[start:stop])
        past = cache.get_seq_length()
        return self.model.decode(part, features, past=past, past_key_values=cache, use_cache=True)


def measure(model: QwenVL, name: str, protocol: Protocol, repeats: int, stock: bool) -> dict[str, Any]:
    work = Workload(model, protocol)
    ways: dict[str, Callable[[], NDArray[np.float64]]] = {
        "floor": work.floor,
        "ours": work.ours,
        "append": work.append,
        "recompute": work.recompute,
    }
    if stock and name == "paper":
        from stock import stock_values

        ways["stock"] = lambda: stock_values(work)
    seconds = interleaved(ways, repeats)
    ours = work.ours()
    memory = {way: peak_rss_over(ways[way]) for way in ("floor", "ours")}
    floor = median(seconds["floor"])
    result: dict[str, Any] = {
        "workload": name,
        "prefixes": len(work.schedule.prefix_lengths),
        "distinct": len(work.counts),
        "odd": len(work.layout.odd_counts),
        "trunk_tokens": len(work.layout.trunk),
        "branch_tokens": len(work.layout.branch),
        "seconds": seconds,
        "median": {way: median(s) for way, s in seconds.items()},
        "over_floor": {way: median(s) / floor for way, s in seconds.items()},
        "over_ours": {way: median(s) / median(seconds["ours"]) for way, s in seconds.items()},
        "largest_difference": {
            way: float(np.abs(ways[way]() - ours).max()) for way in ways if way not in ("floor", "ours")
        },
        "peak_rss_bytes": memory,
    }
    if memory["floor"] and memory["ours"]:
        result["memory_over_floor"] = memory["ours"] / memory["floor"]
    return result


def show(results: list[dict[str, Any]], console: Console) -> None:
    table = Table("workload", "way", "median s", "x floor", "x ours", "max |diff| nats", "peak MB")
    for r in results:
        for way, seconds in r["median"].items():
            difference = r["largest_difference"].get(way)
            memory = r["peak_rss_bytes"].get(way)
            table.add_row(
                f"{r['workload']} ({r['distinct']} prefixes)" if way == "floor" else "",
                way,
                f"{seconds:.3f}",
                f"{r['over_floor'][way]:.2f}",
                f"{r['over_ours'][way]:.2f}",
                "" if difference is None else f"{difference:.1e}",
                "" if memory is None else f"{memory / 2**20:.0f}",
                end_section=way == list(r["median"])[-1],
            )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way (median)")
    parser.add_argument("--workload", choices=list(WORKLOADS), action="append", help="only this one (may repeat)")
    parser.add_argument("--no-stock", action="store_true", help="leave out the off-the-shelf row")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    console = Console()
    with torch.inference_mode():
        model = random_model(TEXT, VISION)
        console.print(
            f"random Qwen3-VL, {sum(p.numel() for p in model.model.parameters()) / 1e6:.0f} M parameters, fp32"
        )
        results = [
            measure(model, name, protocol, options.repeats, not options.no_stock)
            for name, protocol in WORKLOADS.items()
            if not options.workload or name in options.workload
        ]
    show(results, console)
    if options.json:
        report = {"machine": machine(), "kernels": model.kernels, "text": TEXT, "vision": VISION, "results": results}
        write_atomically(options.json, json.dumps(report, indent=1) + "\n")
        console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
