"""A run as a page shows it: what was run, its results beside their controls, and a line per episode.

In go episodes as rows, summaries and what a folder says of itself; out comes what JSON holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topreward.evaluation.rows import EpisodeRows, Row
from topreward.evaluation.summary import Summary
from topreward.jobs.episode import Measured
from topreward.jobs.plan import FROZEN, REAL, TIME_INDEX, Plan
from topreward.provenance import software
from topreward.report.page.episode import estimators_of, numbers
from topreward.report.page.marks import marks
from topreward.report.tables import HEADINGS, MARKS, interval, number

SPARK_POINTS = 24


def list_row(measured: Measured, rows: EpisodeRows, plan: Plan) -> dict[str, Any]:
    """An episode's line in the list."""
    found = {(row.estimator, row.control): row for row in rows.rows}
    names = estimators_of(plan)
    real = {name: found[name, REAL] for name in names if (name, REAL) in found}
    reading = measured.reading(names[0], REAL) if names else None
    curve = None if reading is None else reading.curve
    return {
        "id": measured.id,
        "instruction": measured.instruction,
        "success": measured.success,
        "split": measured.split,
        "error": rows.error,
        "failed": {name: row.failure for name, row in real.items() if row.failure},
        "voc": {name: numbers([row.voc])[0] for name, row in real.items()},
        "frozen": {n: numbers([found[n, FROZEN].voc])[0] for n in names if (n, FROZEN) in found and n != "debiased"},
        "score": {name: numbers([row.score])[0] for name, row in real.items()},
        "reach": None if curve is None or np.isnan(curve.values).any() else numbers([np.ptp(curve.values)])[0],
        "spark": None if curve is None else numbers(curve.values[_evenly(len(curve), SPARK_POINTS)], 4),
        "marks": [] if curve is None else [mark.kind for mark in marks(curve)],
    }


def run_data(summaries: Sequence[Summary], rows: Sequence[EpisodeRows], plan: Plan) -> dict[str, Any]:
    """Results over all episodes."""
    names = estimators_of(plan)
    by_name = {name: [row for e in rows for row in e.rows if row.estimator == name] for name in names}
    return {
        "table": _table(summaries),
        "sentences": [
            {"level": {"none": "bad", "undecided": "warn"}.get(s.evidence, "info"), "text": s.sentence}
            for s in summaries
            if s.sentence
        ],
        "distribution": {name: _distribution(found) for name, found in by_name.items()},
        "success": {s.estimator: _success(s, by_name.get(s.estimator, [])) for s in summaries if s.success},
    }


def facts(settings: Mapping[str, Any], rows: Sequence[EpisodeRows]) -> list[tuple[str, str]]:
    """What was run, as (name, value) to be read."""
    model = settings.get("model") if isinstance(settings.get("model"), Mapping) else {}
    dataset = settings.get("dataset") if isinstance(settings.get("dataset"), Mapping) else {}
    assert isinstance(model, Mapping)
    assert isinstance(dataset, Mapping)
    out: list[tuple[str, str]] = []

    def tell(name: str, value: Any) -> None:
        if value not in (None, "", (), [], {}, False):
            out.append((name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)))

    tell("model", model.get("name"))
    for key in ("revision", "adapter", "dtype", "quantization"):
        tell(key, None if model.get(key) == "none" else model.get(key))
    for key, label in (("protocol", "protocol"), ("gvl_protocol", "GVL protocol")):
        given = settings.get(key)
        tell(label, given.get("name") if isinstance(given, Mapping) else given)
    tell("dataset", dataset.get("dataset") or dataset.get("videos"))
    for key in ("revision", "camera", "episodes", "split", "subset", "instruction"):
        tell(f"dataset {key}" if key == "revision" else key, dataset.get(key))
    made = dict.fromkeys(text for e in rows for text in e.made.values())
    tell("ways curves were made", len(made) if len(made) > 1 else None)
    versions = software()
    tell("page made with", f"topreward {versions['topreward']}, commit {versions['commit'] or 'unknown'}")
    return out


def _table(summaries: Sequence[Summary]) -> dict[str, Any]:
    controls = [c for c in HEADINGS if any(c in s.trends for s in summaries)]
    lines: list[dict[str, Any]] = []
    for s in summaries:
        cells = [_cell(s.trends[c], s.trends[REAL].episodes) if c in s.trends else ["", ""] for c in controls]
        success = s.success
        cells.append([number(success.roc_auc), ""] if success else ["", ""])
        cells.append([number(s.truth.mae.mean), ""] if s.truth and s.truth.mae.count else ["", ""])
        mark = MARKS.get(s.evidence, "").strip()
        lines.append({"name": s.estimator, "mark": mark, "clock": s.estimator == TIME_INDEX, "cells": cells})
    columns = [*(HEADINGS[c] for c in controls), "ROC-AUC", "error"]
    kept = [i for i in range(len(columns)) if any(line["cells"][i][0] for line in lines)]
    for line in lines:
        line["cells"] = [line["cells"][i] for i in kept]
    return {"columns": [columns[i] for i in kept], "rows": lines}


def _cell(trend: Any, episodes: int) -> list[str]:
    text, _, spread = interval(trend.voc).partition("\n")
    if trend.voc.count != episodes:
        flat = f", {trend.constant} flat" if trend.constant else ""
        spread = f"{spread} · {trend.voc.count} of {episodes}{flat}".strip(" ·")
    return [text, spread]


def _distribution(rows: Sequence[Row]) -> dict[str, Any]:
    """VOCs of the real videos and of the frozen ones; a constant curve has none, and is counted."""
    out: dict[str, Any] = {}
    for control in (REAL, FROZEN):
        those = [row for row in rows if row.control == control and row.error is None]
        vocs = [v for v in numbers([row.voc for row in those], 4) if v is not None]
        if those:
            out[control] = {"voc": vocs, "undefined": len(those) - len(vocs)}
    return out


def _success(summary: Summary, rows: Sequence[Row]) -> dict[str, Any]:
    found = summary.success
    assert found is not None
    labelled = [row for row in rows if row.control == REAL and row.success is not None]
    calibration = found.calibration
    return {
        "score": found.score,
        "auc": number(found.roc_auc),
        "threshold": numbers([found.threshold])[0],
        "accuracy": number(found.accuracy),
        "majority": number(found.majority),
        "tested": found.tested_on,
        "scores": [[numbers([row.score])[0], row.success, row.episode_id] for row in labelled],
        "calibration": None
        if calibration is None
        else {
            "ece": number(calibration.ece),
            "counts": calibration.counts.tolist(),
            "probability": numbers(calibration.probability, 4),
            "succeeded": numbers(calibration.succeeded, 4),
        },
    }


def _evenly(count: int, most: int) -> Any:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
