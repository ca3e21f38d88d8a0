"""Labels as files in the run's folder, which can be made again at any time: labels/<estimator>/.

    frames.parquet     a row per raw frame
    episodes.parquet   a row per episode, those in error too
    summary.json       what was taken over the dataset, how, and what to know of it
    review.jsonl       episodes that deserve a look, the weightiest first

In go Labels; out come files, whole or absent, the same bytes for the same curves and settings.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from topreward.errors import ConfigError
from topreward.evaluation.results import plain
from topreward.files import write_atomically
from topreward.labels.derive import Labels
from topreward.labels.signals import RABC_EPSILON
from topreward.labels.tables import write_tables
from topreward.provenance import software

LABELS_FORMAT = 1


def labels_folder(run: Path, estimator: str) -> Path:
    """Where an estimator's labels lie in a run's folder. Raises ConfigError for a name that would lead elsewhere."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", estimator):
        raise ConfigError(f"{run}: names an estimator {estimator!r}, want letters, digits, _, - and dots")
    return run / "labels" / estimator


def write_labels(labels: Labels, run: Path) -> Path:
    """All four files. Returns their folder. Raises ConfigError where it cannot be written."""
    folder = labels_folder(run, labels.estimator)
    write_tables(labels, folder / "frames.parquet", folder / "episodes.parquet")
    lines = [
        json.dumps(
            {
                "episode_id": kept.id,
                "episode_index": labels.numbers[kept.id],
                "instruction": kept.instruction,
                "look": list(facts.reasons),
                "weight": round(facts.weight, 4),
            },
            ensure_ascii=False,
        )
        for kept, facts in labels.first_to_look_at
    ]
    write_atomically(folder / "review.jsonl", "".join(f"{line}\n" for line in lines))
    write_atomically(folder / "summary.json", json.dumps(summary(labels), indent=1, allow_nan=False) + "\n")
    return folder


def summary(labels: Labels) -> dict[str, Any]:
    """What summary.json holds; NaN is null."""
    overall = labels.overall
    in_error = {kept.id: kept.real.error for kept in labels.episodes if kept.real.error is not None}
    failed = {kept.id: kept.real.failure for kept in labels.episodes if kept.real.failure is not None}
    found: dict[str, Any] = plain(
        {
            "format": LABELS_FORMAT,
            "estimator": labels.estimator,
            "complete": labels.complete,
            "episodes_planned": labels.planned,
            "episodes": len(labels.episodes),
            "episodes_labelled": len(labels.episodes) - len(labels.unlabelled),
            "frames": sum(kept.num_frames for kept in labels.episodes),
            "in_error": in_error,
            "failed_answers": failed,
            "settings": labels.settings.to_dict(),
            "audit": labels.audit,
            "anchors": overall.anchors,
            "longest_episode": overall.longest,
            "advantage": {
                "standard_deviation": overall.advantage_std,
                "beta": overall.beta,
                "weight_spread": overall.weight_spread,
                "positive_thresholds": overall.thresholds,
                "force_positive": sorted(labels.forced),
            },
            "rabc": {
                "chunk_size": labels.settings.chunk_size,
                "gain_mean": overall.gains.raw_mean if overall.gains else None,
                "gain_std": overall.gains.std if overall.gains else None,
                "kappa": overall.kappa,
                "kappa_suggested": overall.kappa_suggested,
                "epsilon": RABC_EPSILON,
            },
            "success": {"threshold": overall.success_threshold, "told": overall.success},
            "notes": labels.notes,
            "provenance": {"run": labels.run, "software": software()},
        }
    )
    return found
