"""docs/labelling.md names every column, in order, with its type, and keeps its word on what is never null."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelled import some, write_run
from places import ROOT
from topreward.jobs.stored import open_stored
from topreward.labels.derive import derive
from topreward.labels.tables import EPISODES, FRAMES
from topreward.labels.write import write_labels

TABLES = [("frames.parquet", FRAMES), ("episodes.parquet", EPISODES)]


def documented(heading: str) -> list[list[str]]:
    """The cells of a table of columns: name, type, unit, what it is, null where."""
    text = (ROOT / "docs" / "labelling.md").read_text(encoding="utf-8")
    section = text.split(f"### {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| `\w+` \|", line)]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(("heading", "schema"), TABLES)
def test_the_documented_schema_is_the_schema(heading: str, schema: pa.Schema) -> None:
    rows = documented(heading)
    assert {len(row) for row in rows} == {5}
    want = [(field.name, str(field.type).replace("item: ", "").replace("element: ", "")) for field in schema]
    assert [(row[0], row[1]) for row in rows] == want


@pytest.mark.parametrize("heading", [heading for heading, _ in TABLES])
def test_what_is_never_null_is_not_and_the_rest_may_be(heading: str, tmp_path: Path) -> None:
    """Over runs in which everything is missing that can be: curves, answers, labels, a scale, half the episodes."""
    made = [replace(m, success=None) for m in some(6)]
    broken = [*made, replace(made[0], error="cut off"), replace(made[1], values=[float("nan")] * len(made[1].scored))]
    failed = [replace(broken[-1], failure={"kind": "refusal", "reason": "no"}, unit="percent")]
    percent = [replace(m, unit="percent", values=[0.0] * len(m.scored), split="a", success=True) for m in made]
    runs = [
        write_run(tmp_path / "broken", broken, lerobot=False, planned=20),
        write_run(tmp_path / "percent", [*percent, *failed], base="gvl"),
        write_run(tmp_path / "single", [replace(made[0], scored=[3], values=[-1.0]), replace(made[1], split="b")]),
    ]
    first = sorted((runs[1] / "curves").iterdir())[0]
    first.write_text(json.dumps(json.loads(first.read_text()) | {"place": None}))
    nulls: dict[str, int] = {}
    for run in runs:
        stored = open_stored(run)
        table = pq.read_table(write_labels(derive(stored, stored.plan.estimators[0]), run) / heading)
        for name in table.column_names:
            nulls[name] = nulls.get(name, 0) + table[name].null_count
    never = {row[0] for row in documented(heading) if row[4].startswith("never")}
    assert {name for name, count in nulls.items() if not count} - never <= {"timestamp"}  # all of these have a rate
    assert not {name for name in never if nulls[name]}
