"""Does the engine under eval and label keep the model busy, and does it stay small?

    python benchmarks/labelling.py [--quick] [--row NAME ...] [--json benchmarks/results/labelling.json]

A function per row, on the CPU, with the random model of benchmarks/one_pass.py where nothing else is said:

    ahead      files whose decoding takes a good part of the model's time: rate over the model's alone, without a
               decoder and with one; model and decoder have a thread each
    batches    short clips eight at a time against one by one, one thread
    controls   the demo checkpoint over demo episodes with all controls, two threads: passes against the real curves
               one by one, and all of eval against the passes
    flat       thousands of demo episodes: resident memory of all processes, open files, shared memory, temporary files
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import torch

from common import machine, random_model
from one_pass import TEXT, VISION
from topreward.config import load_protocol
from topreward.estimators.gvl.protocol import load_gvl_protocol
from topreward.estimators.topreward import TOPReward
from topreward.evaluation import Folder, ModelSetup, Plan, evaluate, summarise
from topreward.evaluation.results import write_results
from topreward.evaluation.rows import EpisodeRows
from topreward.files import write_atomically
from topreward.jobs.engine import Engine
from topreward.jobs.episode import Measured
from topreward.jobs.inputs import Inputs
from topreward.jobs.measure import AtHand, measure_all, read, recipes_of
from topreward.jobs.scorers import Scorer, TOPRewardScorer
from topreward.types import Clip, Episode
from topreward.video import read_video

REAL_ONLY = Plan(("topreward",), controls=False)
INSTRUCTION = "pick up the cup"


def ahead(quick: bool) -> dict[str, Any]:
    """1920x1080 H.264 with a keyframe every 250 frames, dense; end to end over model-only."""
    torch.set_num_threads(1)
    clips, frames = (3, 60) if quick else (16, 120)
    scorers = random_scorers(frame_pixels=3 * 2**16)
    with tempfile.TemporaryDirectory() as folder:
        listed = [
            Episode(f"e{i}", INSTRUCTION, partial(read_video, write_film(Path(folder) / f"{i}.mp4", i, frames)))
            for i in range(clips)
        ]
        start = time.perf_counter()
        ready = at_hand(listed, scorers, REAL_ONLY)
        reading = time.perf_counter() - start
        start = time.perf_counter()
        for episode in ready:
            measure_all([episode], scorers, REAL_ONLY)
        alone = time.perf_counter() - start
        del ready
        rates = {}
        for decoders in (0, 1):
            seconds, waiting = carried_out(listed, scorers, Engine(decoders=decoders))
            rates[str(decoders)] = {"rate_over_model": alone / seconds, "waiting": waiting, "seconds": seconds}
    return {"clips": clips, "frames": frames, "decoding_over_model": reading / alone, "decoders": rates}


def batches(quick: bool) -> dict[str, Any]:
    """Clips of 2 s, four sampled frames at 256x256."""
    torch.set_num_threads(1)
    clips = 8 if quick else 64
    scorers = random_scorers()
    noise = np.random.default_rng(0).integers(0, 256, (clips, 4, 256, 256, 3), dtype=np.uint8)
    listed = [Episode(f"e{i}", INSTRUCTION, partial(Clip.from_array, film, 2.0)) for i, film in enumerate(noise)]
    ready = at_hand(listed, scorers, REAL_ONLY)
    measure_all(ready[:2], scorers, REAL_ONLY, batch_size=2)  # warm
    found, seconds = {}, {}
    for size in (1, 8):
        start = time.perf_counter()
        found[size] = [
            measured
            for first in range(0, clips, 8)
            for measured in measure_all(ready[first : first + 8], scorers, REAL_ONLY, batch_size=size)
        ]
        seconds[str(size)] = time.perf_counter() - start
    return {
        "clips": clips,
        "seconds": seconds,
        "speedup": seconds["1"] / seconds["8"],
        "largest_difference": largest_difference(found[1], found[8]),
    }


def controls(quick: bool) -> dict[str, Any]:
    """eval's controls, `--estimators topreward`."""
    torch.set_num_threads(2)
    count = 4 if quick else 60
    plan = Plan(("topreward",))
    setup = ModelSetup(
        plan.bases, load_protocol("demo"), load_gvl_protocol("gvl-demo"), {"name": "demo", "device": "cpu"}
    )
    scorers = setup()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(dataset=f"demo:?count={count}&videos={folder}/videos")
        listed = list(inputs())
        for episode in listed:
            episode.clip()  # which writes its file
        ready = at_hand(listed, scorers, plan)
        measure_all(ready[:2], scorers, plan, batch_size=None)  # warm
        real = at_hand(listed, scorers, REAL_ONLY)
        start = time.perf_counter()
        one_by_one = [measure_all([episode], scorers, REAL_ONLY)[0] for episode in real]
        alone = time.perf_counter() - start
        start = time.perf_counter()
        together = [
            m for i in range(0, count, 16) for m in measure_all(ready[i : i + 16], scorers, plan, batch_size=None)
        ]
        passes = time.perf_counter() - start
        del ready, real
        start = time.perf_counter()
        with Folder(Path(folder) / "run") as kept:
            engine = Engine(decoders=None, batch_size=None)
            run = evaluate(lambda *_: scorers, inputs, plan, kept, engine=engine)
            write_results(kept, run, summarise(run.episodes, plan))
            whole = time.perf_counter() - start
            kept_ones = [kept.load(name) for name in run.planned]
    assert all(m is not None for m in kept_ones)
    return {
        "episodes": count,
        "seconds": {"real": alone, "passes": passes, "eval": whole},
        "passes_over_real": passes / alone,
        "tokens_over_real": tokens(together) / tokens(one_by_one),
        "eval_over_passes": whole / passes,
        "waiting": run.pace.waiting,
        "largest_difference": largest_difference(one_by_one, together),
        "largest_difference_eval": largest_difference(one_by_one, [m for m in kept_ones if m is not None]),
    }


def flat(quick: bool) -> dict[str, Any]:
    """Memory of this process and its decoder after 200 and after all episodes, and what is left in the end."""
    torch.set_num_threads(1)
    count, warm = (60, 20) if quick else (2000, 200)
    plan = Plan(("topreward",))
    setup = ModelSetup(
        plan.bases, load_protocol("demo"), load_gvl_protocol("gvl-demo"), {"name": "demo", "device": "cpu"}
    )
    before, temporary = open_files(), temporary_files()
    sizes: list[int] = []

    def on_done(episode: EpisodeRows) -> None:
        assert episode.error is None, episode.error
        sizes.append(resident())

    with tempfile.TemporaryDirectory() as folder:
        with Folder(Path(folder) / "run") as kept:
            inputs = Inputs(dataset=f"demo:?count={count}&size=64")
            engine = Engine(decoders=1, batch_size=None)
            run = evaluate(setup, inputs, plan, kept, engine=engine, on_done=on_done)
        half_written = [p.name for p in Path(folder).rglob("*.tmp")]
    window = max(1, warm // 4)  # episodes; decoders are at different places at any one moment
    early, late = (float(np.median(part)) for part in (sizes[warm - window : warm], sizes[-window:]))
    return {
        "episodes": count,
        "resident_mib": {str(warm): early / 2**20, str(count): late / 2**20},
        "growth": late / early - 1,
        "seconds": run.seconds,
        "new_open_files": sorted(open_files() - before),
        "new_temporary_files": sorted(temporary_files() - temporary),
        "half_written": half_written,
        "shared_memory": [line for line in Path("/proc/self/maps").read_text().splitlines() if "topreward" in line],
        "processes": len(psutil.Process().children(recursive=True)),
    }


ROWS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "ahead": ahead,
    "batches": batches,
    "controls": controls,
    "flat": flat,
}
"""A row that compares with another program gets a function here."""


def random_scorers(**changes: Any) -> dict[str, Scorer]:
    """`changes` to the dense protocol."""
    protocol = load_protocol("dense", **changes)
    return {"topreward": TOPRewardScorer(TOPReward(random_model(TEXT, VISION)), protocol)}


def at_hand(listed: Sequence[Episode], scorers: dict[str, Scorer], plan: Plan) -> list[AtHand]:
    """Episodes whose frames are decoded and resized."""
    from topreward.jobs.controls import other_instructions

    recipes, others = recipes_of(scorers), other_instructions(listed, plan.seed)
    return [AtHand.of(e, other, read(e, recipes, plan), plan) for e, other in zip(listed, others, strict=True)]


def carried_out(listed: list[Episode], scorers: dict[str, Scorer], engine: Engine) -> tuple[float, float]:
    """Seconds from the first episode to the last file, and the share that the model waited."""
    with Folder() as folder:
        start = time.perf_counter()
        run = evaluate(lambda *_: scorers, lambda: listed, REAL_ONLY, folder, engine=engine)
        assert run.failed == 0, run.episodes[0].error
        return time.perf_counter() - start, run.pace.waiting


def write_film(path: Path, seed: int, frames: int, fps: int = 12) -> Path:
    """A scene that pans, in camera noise."""
    random = np.random.default_rng(seed)
    base = np.kron(random.integers(40, 216, (34, 60, 3), dtype=np.uint8), np.ones((32, 32, 1), np.uint8))
    noise = random.integers(-6, 7, (1080, 1920, 1)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 1920, 1080, "yuv420p", 250
        for i in range(frames):
            picture = np.roll(base, 4 * i, axis=1)[:1080, :1920] + np.roll(noise, 37 * i, axis=0)
            shown = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path


def tokens(found: Sequence[Measured]) -> int:
    """Trunk and branch tokens of all calls; curves of one call name the same."""
    calls = {(m.id, r.control.removesuffix("other_instruction") or "real"): r for m in found for r in m.readings[::-1]}
    return sum(sum(r.curve.provenance["tokens"].values()) for r in calls.values() if r.curve is not None)


def largest_difference(one: Sequence[Measured], other: Sequence[Measured]) -> float:
    """Of the real videos' values, nats."""
    pairs = [(a.reading("topreward", "real"), b.reading("topreward", "real")) for a, b in zip(one, other, strict=True)]
    return max(
        float(np.abs(a.curve.values - b.curve.values).max()) for a, b in pairs if a and b and a.curve and b.curve
    )


def resident() -> int:
    """Bytes of this process and its children; what they share counts once."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def open_files() -> set[str]:
    return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


def temporary_files() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a run that only shows that all works")
    parser.add_argument("--row", choices=list(ROWS), action="append", help="only this one (may repeat)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "quick": options.quick}
    for name in options.row or ROWS:
        report[name] = ROWS[name](options.quick)
        print(f"{name}: {json.dumps(report[name], indent=1)}", flush=True)
    if options.json:
        write_atomically(options.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
