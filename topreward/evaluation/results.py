"""Everything that a run found, as files: results.json, episodes.parquet, or one JSON file with all curves.

In go a run, its summaries and its folder; out come files, whole or absent. NaN is null in JSON and stays NaN in
parquet. What each key means: docs/evaluation.md.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from topreward.evaluation.evaluate import EvalRun
from topreward.evaluation.rows import EpisodeRows, Row
from topreward.evaluation.summary import Summary
from topreward.evaluation.versions import measured_with
from topreward.files import json_text, told, whole_file, write_atomically
from topreward.jobs.folder import Folder
from topreward.jobs.plan import REAL
from topreward.provenance import software

RESULTS_FORMAT = 2

COLUMNS: tuple[tuple[str, Any], ...] = (
    ("episode_id", pa.string()),
    ("estimator", pa.string()),
    ("control", pa.string()),
    ("instruction", pa.string()),
    ("success", pa.bool_()),
    ("split", pa.string()),
    ("num_frames", pa.int64()),
    ("prefixes", pa.int64()),
    ("unit", pa.string()),
    ("voc", pa.float64()),
    ("kendall_tau", pa.float64()),
    ("slope", pa.float64()),
    ("first", pa.float64()),
    ("last", pa.float64()),
    ("score", pa.float64()),
    ("probability", pa.float64()),
    ("mae", pa.float64()),
    ("mae_minmax", pa.float64()),
    ("failure", pa.string()),
    ("error", pa.string()),
    ("seconds", pa.float64()),
    ("tokens", pa.int64()),
)


def write_results(folder: Folder, run: EvalRun, summaries: Sequence[Summary]) -> None:
    """results.json and episodes.parquet, beside the episodes' own files."""
    folder.check()
    write_atomically(folder.path / "results.json", _text(folder, run, summaries))
    write_parquet(folder.path / "episodes.parquet", run.episodes)


def write_single_file(path: str | os.PathLike[str], folder: Folder, run: EvalRun, summaries: Sequence[Summary]) -> None:
    """results.json and every episode's curves, in one file: `curves` holds what lies in the folder's files."""
    # The files' own text: reading thousands of curves only to write them again would take memory for nothing.
    with told(folder.path, "cannot be read"):
        curves = ",\n".join(
            f"{json.dumps(episode.id)}: {folder.file(episode.id).read_text(encoding='utf-8').strip()}"
            for episode in run.episodes
        )
    write_atomically(path, _text(folder, run, summaries, more=f',\n "curves": {{\n{curves}\n }}'))


def _text(folder: Folder, run: EvalRun, summaries: Sequence[Summary], more: str = "") -> str:
    """results.json, a line per episode: thousands of them are never all dictionaries at once."""
    head = json_text(_head(run, summaries), indent=1).removesuffix("\n}")
    episodes = ",\n".join(json_text(_episode(folder, e)) for e in run.episodes)
    return f'{head},\n "episodes": [\n{episodes}\n ]{more}\n}}\n'


def results_dict(folder: Folder, run: EvalRun, summaries: Sequence[Summary]) -> dict[str, Any]:
    """What results.json holds: the summaries, what made them, a row per episode, estimator and control."""
    return _head(run, summaries) | {"episodes": [_episode(folder, episode) for episode in run.episodes]}


def _head(run: EvalRun, summaries: Sequence[Summary]) -> dict[str, Any]:
    made: dict[str, list[Any]] = {}
    for base in dict.fromkeys(base for episode in run.episodes for base in episode.made):
        texts = dict.fromkeys(episode.made[base] for episode in run.episodes if base in episode.made)
        made[base] = [json.loads(text) for text in texts]
    return {
        "format": RESULTS_FORMAT,
        "complete": len(run.done) == len(run.planned),
        "episodes_planned": len(run.planned),
        "episodes_done": len(run.done),
        "episodes_failed": run.failed,
        "estimators": {s.estimator: _summary(s) for s in summaries},
        "cost": {
            "decode_seconds": sum(episode.decode_seconds for episode in run.episodes),
            "decoded_frames": sum(episode.decoded_frames for episode in run.episodes),
            "wall_seconds": run.seconds,
            "episodes_resumed": run.resumed,
            "workers": run.workers,
        },
        "provenance": {
            "settings": run.settings,
            "made": made,
            "software": software(),
            "measured_with": [
                {"episodes": count, "software": versions} for versions, count in measured_with(run.episodes)
            ],
        },
    }


def write_parquet(path: Path, episodes: Sequence[EpisodeRows]) -> None:
    """One row per episode, estimator and control."""
    rows = [row for episode in episodes for row in episode.rows]
    schema = pa.schema(COLUMNS)
    columns = [pa.array([_utf8(getattr(r, name)) for r in rows], kind) for name, kind in COLUMNS]
    with whole_file(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary)


def _utf8(value: Any) -> Any:
    """Text as parquet can hold it: half of a surrogate pair, from the name of an odd file, as JSON spells it."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """Dataclasses, arrays and NaN → what JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def _summary(summary: Summary) -> dict[str, Any]:
    out: dict[str, Any] = plain(summary)
    for control, trend in summary.trends.items():
        out["trends"][control]["failure_rate"] = plain(trend.failure_rate)
    if summary.cost is not None:
        out["cost"]["ratio"] = plain(summary.cost.ratio)
    del out["estimator"]
    return out


def _episode(folder: Folder, episode: EpisodeRows) -> dict[str, Any]:
    known = ("id", "instruction", "other_instruction", "success", "split", "num_frames", "error", "notes")
    estimators: dict[str, dict[str, Any]] = {}
    for row in episode.rows:
        estimators.setdefault(row.estimator, {})[row.control] = _row(row)
    return {
        **{name: plain(getattr(episode, name)) for name in known},
        "decode_seconds": episode.decode_seconds,
        "decoded_frames": episode.decoded_frames,
        "seconds": plain(episode.seconds),
        "curves": f"curves/{folder.file(episode.id).name}" if folder.kept else None,
        "estimators": estimators,
    }


def _row(row: Row) -> dict[str, Any]:
    """What is not said of the episode already."""
    said = ("episode_id", "estimator", "control", "success", "split", "num_frames")
    out = {name: plain(getattr(row, name)) for name, _ in COLUMNS if name not in said}
    if row.control == REAL:
        del out["instruction"]
    return out
