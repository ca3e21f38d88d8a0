"""Whatever a file has become, reading it gives a result or an error of our own, in bounded time and memory.

50 mutations of each kind of input by default (10 of a checkpoint's); `make fuzz` tries thousands. Each is made from its
number, which is printed where it fails: `TOPREWARD_FUZZ_FIRST=4711 TOPREWARD_FUZZ=1 pytest tests/test_fuzz.py -k mp4`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from fuzz import KINDS, SECONDS
from places import ROOT, SUPPORT

COUNT = int(os.environ.get("TOPREWARD_FUZZ", "50"))
FIRST = int(os.environ.get("TOPREWARD_FUZZ_FIRST", "0"))


@pytest.mark.skipif(sys.platform != "linux", reason="bounds address space and reads /proc")
@pytest.mark.parametrize("name", KINDS)
def test_a_broken_input_is_read_or_refused_by_name(name: str) -> None:
    count = max(1, COUNT // 5) if name in ("safetensors", "config.json") else COUNT
    first, failures = FIRST, []
    while first < FIRST + count:
        lines, end = read_along(name, first, FIRST + count - first)
        assert lines, f"{name}: the sound input cannot be read: {end}"
        what = {line["seed"]: line["what"] for line in lines if "what" in line}
        outcomes = {line["seed"]: line["outcome"] for line in lines if "outcome" in line}
        for seed, change in what.items():
            if outcome := outcomes.get(seed, end):  # without one, the process ended within this input
                failures.append(f"seed {seed}, {change}:\n{outcome}")
        first = max(what) + 1
    assert not failures, f"{len(failures)} of {count} {name}\n" + "\n".join(failures[:20])


def read_along(name: str, first: int, count: int) -> tuple[list[dict[str, str]], str]:
    """(what the reading process said, line by line; how it ended)."""
    command = [sys.executable, str(SUPPORT / "fuzz.py"), name, str(first), str(count)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, errors="replace")
    end = run.stderr[-2000:]
    if run.returncode < 0:
        kind = signal.Signals(-run.returncode).name
        end = f"more than {SECONDS} s" if kind == "SIGALRM" else f"the process ended by {kind}\n{end}"
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"seed"')], end or "it just ended"
