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
from pathlib import Path
from typing import Any

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
        f"64 sampled frames at 256×256, a random Qwen3-VL of 193 M parameters in fp32, {machine['threads']} threads of "
        f"{machine['cpu']}, torch {machine['torch']}, transformers {machine['transformers']}; medians; the floor under "
        f"`paper` took {floor:.2f} s.",
    ]
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {"one_pass": one_pass}


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
