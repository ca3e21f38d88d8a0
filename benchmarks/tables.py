"""The README's tables, made from the raw JSON in benchmarks/results/.

    python benchmarks/tables.py            rewrite the tables in README.md and benchmarks/README.md
    python benchmarks/tables.py --check    fail if a table is not what the JSON says

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from topreward_vs_gvl import table as estimators_table

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")

WAYS = {
    "floor": "one forward over the video (the floor)",
    "ours": "**topreward: the whole curve**",
    "append": "append-and-crop, prefix by prefix",
    "recompute": "a forward per prefix",
    "stock": "a forward per prefix, qwen-vl-utils + stock processor",
}
WORKLOADS = {
    "paper": "`paper`, {distinct} distinct prefixes",
    "patches, 15": "`dense`, 15 prefixes",
    "patches, all": "`dense`, one per temporal patch ({distinct})",
}


def one_pass() -> str:
    report = load("one_pass")
    results = {r["workload"]: r for r in report["results"]}
    head = [WORKLOADS[name].format(**r) for name, r in results.items()]
    lines = ["| time, in forwards over the video | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for way, text in WAYS.items():
        cells = [f"{r['over_floor'][way]:.2f} ×" if way in r["over_floor"] else "" for r in results.values()]
        if any(cells):
            lines.append(f"| {text} | " + " | ".join(cells) + " |")
    memory = [f"{r['memory_over_floor']:.2f} ×" if "memory_over_floor" in r else "" for r in results.values()]
    lines.append("| topreward: peak memory over the floor's | " + " | ".join(memory) + " |")
    worst = [max(v for way, v in r["largest_difference"].items() if way != "stock") for r in results.values()]
    lines.append("| largest difference to the other ways (nats) | " + " | ".join(f"{w:.0e}" for w in worst) + " |")
    machine = report["machine"]
    floor = results["paper"]["median"]["floor"] if "paper" in results else 0.0
    lines += [
        "",
        f"64 sampled frames at 256×256, a random Qwen3-VL of 193 M parameters in fp32, {machine['threads']} thread(s) "
        f"of {machine['cpu']}, torch {machine['torch']}, transformers {machine['transformers']}; medians; the floor "
        f"under `paper` took {floor:.2f} s.",
    ]
    return "\n".join(lines)


def flat_memory() -> str:
    report = load("flat_memory")
    peak = report["peak_mib"]
    return "\n".join(
        [
            "| peak resident set | MiB |",
            "|---|---:|",
            f"| after {report['warm']} episodes | {peak['warm']:.0f} |",
            f"| after {report['episodes']} episodes | {peak['all']:.0f} |",
            f"| after the results were written | {peak['written']:.0f} |",
            "",
            f"{report['prefixes']} prefixes each, all controls, a tiny random model on {report['machine']['cpu']}; "
            f"growth {report['growth']:.1%}, with writing {report['growth_written']:.1%}.",
        ]
    )


def gpu(name: str) -> str:
    """What benchmarks/gpu.py wrote, wherever it ran."""
    report = load(name)
    ways = ["floor", "ours", "score", "append", "alone", "recompute", "one-by-one"]
    lines = [
        "| workload | prefixes | floor, ms | " + " | ".join(ways[1:]) + " | ours, share of matrix rate |",
        "|---|---:|---:|" + "---:|" * len(ways),
    ]
    for r in report["results"]:
        cells = [f"{r['over_floor'][way]:.2f} ×" if way in r["over_floor"] else "" for way in ways[1:]]
        share = f"{r['share_of_matrix_rate']['ours']:.0%}"
        lines.append(
            f"| {r['workload']} | {r['distinct']} | {r['median']['floor'] * 1e3:.0f} | {' | '.join(cells)} | {share} |"
        )
    if short := report.get("short_clips"):
        largest = max(short["over_one_by_one"], key=int)
        lines += ["", f"{short['clips']} short clips, {largest} in the same passes: "
                  f"{short['over_one_by_one'][largest]:.2f} × the rate of one by one."]  # fmt: skip
    if exact := report.get("this_dtype"):
        lines += ["", f"Largest difference to the slow twin (median over {exact['clips']} clips): "
                  f"{exact['ours_to_slow_twin_median']:.0e} nats; of the slow twin's two kernels to each other: "
                  f"{exact['slow_twin_eager_to_sdpa_median']:.0e}."]  # fmt: skip
    for small in report.get("quantized", []):
        before, after = (small["weight_bytes"][when] / 2**20 for when in ("before", "after"))
        faster = small["median"]["before"]["ours"] / small["median"]["after"]["ours"]
        lines += ["", f"{small['kind']}: weights {before:.0f} → {after:.0f} MiB, {faster:.2f} × the speed, values "
                  f"move by {small['largest_difference_median']:.2g} nats (median over clips)."]  # fmt: skip
    if label := report.get("labelling"):
        lines += ["", f"From video file to parquet: {label['share_of_model_only']:.0%} of the model-only rate, "
                  f"{label['decoding_threads']} decoding thread(s)."]  # fmt: skip
    made, machine, what = report["architecture"], report["machine"], report["what"]
    where = report["gpu"]["name"] if report["gpu"] else f"{machine['cpu']}, {machine['threads']} thread(s)"
    lines += ["", f"{what[0].upper()}{what[1:]}. {made['name']}, random weights, {made['dtype']}, {where}, torch "
              f"{machine['torch']}, transformers {machine['transformers']}; a large matrix product ran at "
              f"{report['matrix_rate'] / 1e12:.3g} TFLOP/s."]  # fmt: skip
    return "\n".join(lines)


def topreward_vs_gvl() -> str:
    return estimators_table(load("topreward_vs_gvl"))


TABLES: dict[str, Callable[[], str]] = {
    "one_pass": one_pass,
    "flat_memory": flat_memory,
    "topreward_vs_gvl": topreward_vs_gvl,
    "gpu": partial(gpu, "gpu"),
    "gpu_script_on_cpu": partial(gpu, "gpu_script_on_cpu"),
}


def load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def rewrite(text: str) -> str:
    """The page with every table made anew."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", made, text, flags=re.DOTALL)


def main() -> None:
    stale = []
    for page in PAGES:
        if not page.is_file():
            continue
        before = page.read_text(encoding="utf-8")
        after = rewrite(before)
        if before != after:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"{', '.join(stale)}: tables differ from benchmarks/results; run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
