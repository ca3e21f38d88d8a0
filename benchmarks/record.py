"""What was measured, on disk as soon as it is there, one entry per workload.

In go entries; out comes one JSON file:

    workloads   name → its newest figures, with how they were made (`made`: arguments, matrix rate, clocks, versions)
    unfinished  what a workload had given when it failed or the run was cut short
    earlier     figures that newer ones of the same workload took the place of
    errors      workloads that failed, with the traceback; they take no figures' place

    python3 benchmarks/record.py a.json b.json --into c.json      join the files of several runs, newest last
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs where topreward is not installed

from topreward.files import write_atomically

Entry = dict[str, Any]


class Record:
    """The figures of one architecture on one kind of machine."""

    def __init__(self, of: dict[str, Any], path: Path | None = None, merge: list[Path] | None = None) -> None:
        """`of`: what all figures must have in common. `path`: where they go, and what is there already stays.

        `merge`: files of earlier runs to start from. Raises ValueError where a file holds figures of something else.
        """
        self.path = path
        self.report: dict[str, Any] = {"of": of, "workloads": {}, "unfinished": {}, "earlier": [], "errors": []}
        for file in [*(merge or []), *([path] if path and path.is_file() else [])]:
            self.take(json.loads(file.read_text(encoding="utf-8")), str(file))

    def take(self, report: dict[str, Any], source: str) -> None:
        """Join what another file holds, as newer."""
        if report.get("of") != self.report["of"]:
            raise ValueError(f"{source} holds figures of {report.get('of')}, these are of {self.report['of']}")
        for key in ("earlier", "errors"):
            self.report[key] += [entry for entry in report[key] if entry not in self.report[key]]
        self.report["unfinished"] |= report["unfinished"]
        for name, entry in report["workloads"].items():
            self._put(name, entry)

    def keep(self, name: str, entry: Entry, *, finished: bool = True) -> None:
        """Write an entry. One that is not finished takes the place of none that is."""
        if finished:
            self.report["unfinished"].pop(name, None)
            self._put(name, entry)
        else:
            self.report["unfinished"][name] = entry
        self.write()

    def fail(self, name: str, error: str, made: dict[str, Any]) -> None:
        """Write that a workload failed; what is there of it stays."""
        self.report["errors"].append({"workload": name, "error": error, "made": made})
        self.write()

    def write(self) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self.report, indent=1, default=str) + "\n")

    def _put(self, name: str, entry: Entry) -> None:
        entry = json.loads(json.dumps(entry, default=str))
        before = self.report["workloads"].get(name)
        if before is not None and before != entry:
            self.report["earlier"].append(before)
        self.report["workloads"][name] = entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, required=True)
    chosen = parser.parse_args()
    of = json.loads(chosen.files[0].read_text(encoding="utf-8"))["of"]
    try:
        record = Record(of, chosen.into, merge=chosen.files)
    except ValueError as error:
        sys.exit(str(error))
    record.write()
    print(f"{chosen.into}: {', '.join(record.report['workloads'])}")


if __name__ == "__main__":
    main()
