"""Does memory stay flat while hundreds of episodes are evaluated?

    python benchmarks/flat_memory.py [--episodes 500] [--json benchmarks/results/flat_memory.json]

Demo episodes under the paper protocol (15 prefixes), by all estimators and with all controls, through the demo model in
this process: what grows is the harness, not the model. The longest clips come first, so that no later one raises the
peak by its length. Prints the peak resident set after 50 episodes, after all of them, and after results.json and
episodes.parquet are written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from common import machine
from topreward.cli.eval import EvalOptions
from topreward.cli.options import ModelOptions, ProtocolOptions
from topreward.datasets import open_dataset
from topreward.evaluation import Folder, Plan, evaluate, summarise
from topreward.evaluation.results import write_results
from topreward.evaluation.rows import EpisodeRows
from topreward.files import write_atomically

WARM = 50


def measure(episodes: int, folder: Path) -> dict[str, Any]:
    """Peak resident set (MiB) after WARM episodes, after all, and after the results are written."""
    plan = Plan()
    chosen = EvalOptions(model=ModelOptions(model="demo", device="cpu"), protocol=ProtocolOptions(protocol="paper"))
    opened = open_dataset(f"demo:?count={episodes}&size=128")
    dataset = sorted(opened, key=lambda episode: -episode.clip().num_frames)
    peaks: list[float] = []
    prefixes: list[int] = []

    def on_done(episode: EpisodeRows) -> None:
        assert episode.error is None, episode.error
        peaks.append(peak_mib())
        prefixes.append(max(row.prefixes for row in episode.rows))
        next(bar, None)

    with Folder(folder) as kept:
        bar = iter(track(range(episodes), "episodes", console=Console(stderr=True)))
        run = evaluate(chosen.setup(plan), lambda: dataset, plan, kept, on_done=on_done)
        write_results(kept, run, summarise(run.episodes, plan))
    written = peak_mib()
    return {
        "episodes": episodes,
        "prefixes": max(prefixes),
        "warm": WARM,
        "peak_mib": {"warm": peaks[WARM - 1], "all": peaks[-1], "written": written},
        "growth": peaks[-1] / peaks[WARM - 1] - 1,
        "growth_written": written / peaks[WARM - 1] - 1,
        "seconds": run.seconds,
        "machine": machine(),
    }


def peak_mib() -> float:
    """The process's highest resident set so far (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.episodes <= WARM:
        parser.error(f"--episodes is {options.episodes}, want more than {WARM}")
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options.episodes, Path(folder))
    peaks = report["peak_mib"]
    print(
        f"{report['episodes']} episodes x {report['prefixes']} prefixes with controls, {report['seconds']:.0f} s: peak "
        f"{peaks['warm']:.0f} MiB after {WARM}, {peaks['all']:.0f} MiB after all ({100 * report['growth']:+.1f} %), "
        f"{peaks['written']:.0f} MiB with the results written ({100 * report['growth_written']:+.1f} %)"
    )
    if options.json:
        write_atomically(options.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
