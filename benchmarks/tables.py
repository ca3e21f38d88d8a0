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
from statistics import median
from typing import Any

from needs import CLIPS, QUANTIZATIONS
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


def one_pass(name: str = "one_pass") -> str:
    if not (RESULTS / f"{name}.json").is_file():
        return "No figures yet."
    report = load(name)
    results = {r["workload"]: r for r in report["results"]}
    head = [WORKLOADS[name].format(**r) for name, r in results.items()]
    lines = ["| time, in forwards over the video | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for way, text in WAYS.items():
        cells = [f"{r['over_floor'][way]:.2f} ×" if way in r["over_floor"] else "" for r in results.values()]
        if any(cells):
            lines.append(f"| {text} | " + " | ".join(cells) + " |")
    if all("states" in r for r in results.values()):
        over = [f"{r['decoder_over_trunk']:.2f} ×" for r in results.values()]
        lines.append("| our passes over the decoder, in plain forwards over the trunk | " + " | ".join(over) + " |")
        states = [f"{r['states']['held_over_estimated']:.3f} ×" for r in results.values()]
        lines.append("| memory of the states, over its estimate | " + " | ".join(states) + " |")
    memory = [f"{r['memory_over_floor']:.2f} ×" if "memory_over_floor" in r else "" for r in results.values()]
    lines.append("| topreward: peak memory over the floor's | " + " | ".join(memory) + " |")
    worst = [max(v for way, v in r["largest_difference"].items() if way != "stock") for r in results.values()]
    lines.append("| largest difference to the other ways (nats) | " + " | ".join(f"{w:.0e}" for w in worst) + " |")
    machine = report["machine"]
    kind = "Qwen3.5" if report.get("architecture") == "hybrid" else "Qwen3-VL"
    millions = report.get("parameters", 193e6) / 1e6
    under, first = next(iter(results.items()))
    floor = first["median"]["floor"]
    lines += [
        "",
        f"{report.get('frames', 64)} sampled frames at 256×256, a random {kind} of {millions:.0f} M parameters in "
        f"fp32, {machine['threads']} thread(s) of {machine['cpu']}, torch {machine['torch']}, transformers "
        f"{machine['transformers']}; medians; the floor under `{under}` took {floor:.2f} s.",
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
            f"{report['prefixes']} prefixes each, all estimators and controls, the demo model on "
            f"{report['machine']['cpu']}; growth {report['growth']:.1%}, with writing {report['growth_written']:.1%}.",
        ]
    )


def gpu(name: str) -> str:
    """What benchmarks/gpu.py wrote, wherever it ran; a line that says so where it has not."""
    report = load(name) if (RESULTS / f"{name}.json").is_file() else {"workloads": {}}
    entries = report["workloads"]
    if not entries:
        return "No figures yet."
    lines = [*_clips(entries), *_others(entries)]
    made = [entry["made"] for entry in entries.values()]
    of, last = report["of"], made[-1]
    device = (
        f"{last['machine']['cpu']}, {last['machine']['threads']} thread(s)" if of["device"] == "cpu" else of["device"]
    )
    rates = sorted({f"{m['matrix_rate'] / 1e12:.3g}" for m in made}, key=float)
    reduced = "Clips at reduced size. " if of["quick"] else ""
    notes = ""
    for kernel in ("cudnn", "flash"):
        if names := [name for name, e in entries.items() if e["made"]["kernels"]["sdpa"] == kernel]:
            notes += f" {kernel} attention first: {', '.join(names)}."
    if names := [name for name, e in entries.items() if e["made"]["patch_embed"]["used"] == "product"]:
        notes += f" Patch embedding as a matrix product: {', '.join(names)}."
    torch, transformers = (" and ".join(sorted({m["machine"][p] for m in made})) for p in ("torch", "transformers"))
    lines += ["", f"{reduced}{of['architecture']}, random weights, {of['dtype']}, {device}, torch {torch}, "
              f"transformers {transformers}; a large matrix product ran at "
              f"{'–'.join(dict.fromkeys((rates[0], rates[-1])))} TFLOP/s.{notes}"]  # fmt: skip
    return "\n".join(lines)


def _clips(entries: dict[str, Any]) -> list[str]:
    ways = ["ours", "score", "append", "alone", "recompute", "one-by-one"]
    head = ["workload", "prefixes", "floor, ms", *ways, "ours, share of matrix rate"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for name in CLIPS:
        if (r := entries.get(name)) is None:
            continue
        cells = [f"{r['over_floor'][way]:.2f} ×" if way in r["over_floor"] else "" for way in ways]
        floor, share = f"{r['median']['floor'] * 1e3:.0f}", f"{r['share_of_matrix_rate']['ours']:.0%}"
        lines.append(f"| {' | '.join([name, str(r['distinct']), floor, *cells, share])} |")
    return lines


def _others(entries: dict[str, Any]) -> list[str]:
    lines = []
    if short := entries.get("short-clips"):
        largest = max(short["over_one_by_one"], key=int)
        lines += ["", f"{short['clips']} short clips, {largest} in the same passes: "
                  f"{short['over_one_by_one'][largest]:.2f} × the rate of one by one."]  # fmt: skip
    if exactness := entries.get("exactness"):
        exact = exactness["this_dtype"]
        lines += ["", f"Largest difference to the slow twin (median over {exact['clips']} clips): "
                  f"{exact['ours_to_slow_twin_median']:.0e} nats; of the slow twin's two kernels to each other: "
                  f"{exact['slow_twin_eager_to_sdpa_median']:.0e}. Read by one head, in fp32: "
                  f"{exact['same_head']['ours_to_slow_twin_median']:.0e} and "
                  f"{exact['same_head']['slow_twin_eager_to_sdpa_median']:.0e}."]  # fmt: skip
    for small in (entries[kind] for kind in QUANTIZATIONS if kind in entries):
        before, after = (small["weight_bytes"][when] / 2**20 for when in ("before", "after"))
        faster = small["median"]["before"]["ours"] / small["median"]["after"]["ours"]
        lines += ["", f"{small['kind']}: weights {before:.0f} → {after:.0f} MiB, {faster:.2f} × the speed, values "
                  f"move by {small['largest_difference_median']:.2g} nats (median over clips)."]  # fmt: skip
    if label := entries.get("label"):
        shares = ", ".join(f"{share:.0%} ({file})" for file, share in label["share_of_model_only"].items())
        lines += ["", f"From video file to parquet: {shares} of the model-only rate; decoding "
                  f"{label['decoding_with']}: {label['decoding_workers']}."]  # fmt: skip
    return lines


def topreward_vs_gvl() -> str:
    return estimators_table(load("topreward_vs_gvl"))


def lerobot_labeller() -> str:
    """Ours beside LeRobot's labeller, s end to end."""
    report = load("lerobot_labeller")
    lines = [
        "| a LeRobot dataset, labelled | LeRobot's labeller | topreward | times faster | both with loading |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        theirs, ours = (median(row["seconds"][side]) for side in ("lerobot", "topreward"))
        loading = row.get("with_loading")
        whole = f"{loading['lerobot']:.1f} s, {loading['topreward']:.1f} s" if loading else ""
        name = f"{row['episodes']} episodes, {row['frames']} frames, {row['values']}"
        lines.append(f"| {name} | {theirs:.1f} s | {ours:.1f} s | {row['times_faster']:.0f} × | {whole} |")
    machine = report["machine"]
    lines += [
        "",
        f"LeRobot {machine['lerobot']}, the demo model in fp32, {machine['threads']} thread of {machine['cpu']}, torch "
        f"{machine['torch']}, transformers {machine['transformers']}; from opening the dataset to LeRobot's file.",
    ]
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "one_pass": one_pass,
    "one_pass_hybrid": partial(one_pass, "one_pass_hybrid"),
    "flat_memory": flat_memory,
    "topreward_vs_gvl": topreward_vs_gvl,
    "lerobot_labeller": lerobot_labeller,
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
