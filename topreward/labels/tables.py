"""Labels as tables: frames.parquet and episodes.parquet, column by column (docs/labelling.md has the same in words).

In go Labels; out come files that are whole or absent. What is undefined is null. An episode's frames are made, written
and forgotten, so that thousands of them take no memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from topreward.files import whole_file
from topreward.labels.derive import Labels
from topreward.labels.kept import Kept

FRAMES = pa.schema(
    [
        ("index", pa.int64()),
        ("episode_index", pa.int64()),
        ("frame_index", pa.int64()),
        ("timestamp", pa.float64()),
        ("episode_id", pa.string()),
        ("scored", pa.bool_()),
        ("value", pa.float32()),
        ("percent", pa.float32()),
        ("probability", pa.float32()),
        ("progress", pa.float32()),
        ("progress_anchored", pa.float32()),
        ("dense_reward", pa.float32()),
        ("advantage", pa.float32()),
        ("weight_clip", pa.float32()),
        ("weight_awr", pa.float32()),
        ("weight_rabc", pa.float32()),
        ("positive", pa.bool_()),
    ]
)

EPISODES = pa.schema(
    [
        ("episode_id", pa.string()),
        ("episode_index", pa.int64()),
        ("instruction", pa.string()),
        ("split", pa.string()),
        ("estimator", pa.string()),
        ("num_frames", pa.int64()),
        ("duration", pa.float64()),
        ("prefixes", pa.int64()),
        ("unit", pa.string()),
        ("success", pa.bool_()),
        ("success_score", pa.float64()),
        ("predicted_success", pa.bool_()),
        ("voc", pa.float64()),
        ("first", pa.float64()),
        ("last", pa.float64()),
        ("range", pa.float64()),
        ("anchor_low", pa.float64()),
        ("anchor_high", pa.float64()),
        ("anchors_over", pa.string()),
        ("largest_drop", pa.float64()),
        ("longest_stall", pa.float64()),
        ("mean_advantage", pa.float64()),
        ("positive_share", pa.float64()),
        ("look", pa.list_(pa.string())),
        ("failure", pa.string()),
        ("error", pa.string()),
    ]
)

GROUP_ROWS = 100_000
"""Frames after which a row group is closed; an episode is never cut by one."""


def write_tables(labels: Labels, frames: Path, episodes: Path) -> None:
    """Both tables, in one go over the episodes."""
    rows = []
    with whole_file(frames) as target, pq.ParquetWriter(target, FRAMES) as writer:
        waiting: list[pa.Table] = []
        for kept in labels.episodes:
            table = frames_table(labels, kept) if kept.num_frames else FRAMES.empty_table()
            rows.append(episode_row(labels, kept, table))
            waiting.append(table)
            if sum(part.num_rows for part in waiting) >= GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        writer.write_table(pa.concat_tables([*waiting, FRAMES.empty_table()]))
    with whole_file(episodes) as target:
        pq.write_table(pa.Table.from_pylist(rows, schema=EPISODES), target)


def frames_table(labels: Labels, kept: Kept) -> pa.Table:
    """One episode's frames."""
    made: dict[str, Any] = labels.frames(kept)
    count = kept.num_frames
    first = kept.place["dataset_from_index"] if kept.place else None
    made["index"] = pa.nulls(count, pa.int64()) if first is None else first + made["frame_index"]
    made["episode_index"] = pa.array([labels.numbers[kept.id]] * count, pa.int64())
    made["episode_id"] = pa.array([_utf8(kept.id)] * count, pa.string())
    return pa.table([_column(made[field.name], field.type) for field in FRAMES], schema=FRAMES)


def episode_row(labels: Labels, kept: Kept, frames: pa.Table) -> dict[str, Any]:
    """One episode as a row of episodes.parquet."""
    real, facts = kept.real, labels.facts(kept)
    anchor = labels.overall.anchors.get(kept.instruction) if kept.labelled else None
    times = kept.times() if kept.num_frames else np.zeros(0)
    advantages = frames["advantage"].to_numpy()
    positive = frames["positive"].drop_null().to_numpy(zero_copy_only=False)
    numbers = {
        "duration": float(times[-1]) if times.size else np.nan,
        "success_score": real.score,
        "voc": real.voc,
        "first": real.first,
        "last": real.last,
        "range": float(np.nanmax(kept.values) - np.nanmin(kept.values)) if kept.labelled else np.nan,
        "anchor_low": anchor.low if anchor else np.nan,
        "anchor_high": anchor.high if anchor else np.nan,
        "largest_drop": facts.largest_drop,
        "longest_stall": facts.longest_stall,
        "mean_advantage": float(np.nanmean(advantages)) if not np.isnan(advantages).all() else np.nan,
        "positive_share": float(positive.mean()) if positive.size else np.nan,
    }
    row = {
        "episode_id": kept.id,
        "episode_index": labels.numbers[kept.id],
        "instruction": kept.instruction,
        "split": kept.split,
        "estimator": labels.estimator,
        "num_frames": kept.num_frames or None,
        "prefixes": kept.values.size or None,
        "unit": kept.unit,
        "success": kept.success,
        "predicted_success": labels.predicted(kept),
        "anchors_over": anchor.over if anchor else None,
        "look": list(facts.reasons),
        "failure": real.failure,
        "error": real.error,
        **{name: None if np.isnan(value) else value for name, value in numbers.items()},
    }
    return {name: [_utf8(v) for v in value] if isinstance(value, list) else _utf8(value) for name, value in row.items()}


def _utf8(value: Any) -> Any:
    """Text as parquet can hold it: half of a surrogate pair, from the name of an odd file, as JSON spells it."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if kind == pa.bool_() and values.dtype != bool:  # NaN is not defined, 1 is true
        return pa.array(values == 1, kind, mask=np.isnan(values))
    return pa.array(values, kind, from_pandas=True)
