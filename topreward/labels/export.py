"""Labels as other trainers read them: LeRobot's progress file, RLinf's advantages, comma-separated tables.

In goes the folder of an estimator's labels; out comes one file (two of tables), whole or absent. What other trainers
would take for a good frame because it is missing is refused, unless that is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from topreward.errors import ConfigError, DatasetError, nearest
from topreward.files import whole_file
from topreward.jobs.episode import place
from topreward.jobs.stored import open_stored
from topreward.labels.settings import ProgressColumn
from topreward.labels.write import labels_folder

LEROBOT = pa.schema(
    [
        ("index", pa.int64()),
        ("episode_index", pa.int64()),
        ("frame_index", pa.int64()),
        ("progress_sparse", pa.float32()),
    ]
)
"""What `lerobot.utils.rabc` and `lerobot.rewards` read; more columns called progress… would confuse them."""

RLINF = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("frame_index", pa.int64()),
        ("advantage", pa.bool_()),
        ("advantage_continuous", pa.float64()),
    ]
)
"""What RLinf's classifier-free guidance reads."""

LEROBOT_NAME = "topreward_progress.parquet"
LEROBOT_FOUND = "sarm_progress.parquet"
"""The name under which LeRobot finds the file by itself, in the dataset's root."""

WEIGHT_1 = "LeRobot weighs a frame without progress 1, as if it were a good one"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    rows: int
    undefined: int
    """Rows without a value."""
    missing: tuple[str, ...]
    """Episodes without values, by id."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """Labels that lie in a run's folder."""

    run: Path
    folder: Path
    summary: Mapping[str, Any]

    @property
    def estimator(self) -> str:
        return str(self.summary["estimator"])

    @property
    def column(self) -> str:
        """The progress that their advantages and weights were made of."""
        return str(self.summary["settings"]["column"])

    def episodes(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.folder / "episodes.parquet").to_pylist()
        return rows

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.folder / "frames.parquet") as file:
            yield from file.iter_batches(columns=columns)


def open_labels(run: Path, estimator: str | None = None) -> Made:
    """The labels in a run's folder; of `estimator`, or of the only one (topreward, where there are several).

    Raises ConfigError where there are none, or where the run went on since.
    """
    stored = open_stored(run)
    there = sorted(path.parent.name for path in (stored.path / "labels").glob("*/summary.json"))
    if not there:
        raise ConfigError(f"{run}: holds no labels yet; make them with: topreward derive {run}")
    chosen = estimator or ("topreward" if "topreward" in there else there[0])
    if estimator is None and "topreward" not in there and len(there) > 1:
        raise ConfigError(f"{run}: holds labels of {', '.join(there)}; say which with --estimator")
    if chosen not in there:
        raise ConfigError(f"{run}: holds no labels of {chosen}{nearest(chosen, there)}; there are {', '.join(there)}")
    folder = labels_folder(stored.path, chosen)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder}/summary.json: cannot be read; derive again ({' '.join(str(error).split())})"
        ) from None
    if summary["episodes"] != len(stored.files):
        raise ConfigError(
            f"{run}: the labels are of {summary['episodes']} episodes, {len(stored.files)} are measured by now; "
            f"make them again with: topreward derive {run}"
        )
    return Made(stored.path, folder, summary)


def export_lerobot(
    made: Made,
    target: Path | None = None,
    *,
    column: str | None = None,
    allow_missing: bool = False,
    force: bool = False,
) -> Exported:
    """LeRobot's progress file: `index`, `episode_index`, `frame_index`, `progress_sparse`.

    `column`: which of ours becomes `progress_sparse`; by default the one that the weights were made of. Raises
    ConfigError where episodes have no value (unless `allow_missing`), where the file is there (unless `force`), and
    for a dataset whose frames are not counted through.
    """
    chosen = column or made.column
    if chosen not in get_args(ProgressColumn):
        known = ", ".join(get_args(ProgressColumn))
        raise ConfigError(f"--column is '{chosen}'{nearest(chosen, get_args(ProgressColumn))}, want one of {known}")
    path = _target(target, made.folder / LEROBOT_NAME, force)
    missing = _missing(made, chosen, WEIGHT_1, allow_missing)
    notes = _subset_notes(made, "LeRobot weighs the frames of all others 1")
    if chosen != made.column:
        notes.append(
            f"kappa and the weights in frames.parquet are of {made.column}: derive with --column {chosen}, too"
        )
    name = (made.summary["provenance"]["run"].get("model") or {}).get("name")
    told = {"estimator": made.estimator, "column": chosen, "causal": made.summary["settings"]["causal"]}
    schema = LEROBOT.with_metadata({"reward_model_path": str(name or "topreward"), "topreward": json.dumps(told)})
    rows = undefined = 0
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for batch in made.batches(["index", "episode_index", "frame_index", chosen]):
            values = batch.column(chosen).cast(pa.float32())
            if chosen == "percent":
                values = pc.divide(values, pa.scalar(100.0, pa.float32()))
            rows += batch.num_rows
            undefined += values.null_count
            # NaN, as LeRobot's own files have it, rather than null.
            arrays = [*(batch.column(i) for i in range(3)), values.fill_null(float("nan"))]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    if undefined:
        notes.append(f"{undefined} of {rows} frames have no progress: {WEIGHT_1}")
    return Exported(path, rows, undefined, missing, tuple(notes))


def export_rlinf(
    made: Made,
    target: Path | None = None,
    *,
    tag: str = "topreward",
    allow_missing: bool = False,
    force: bool = False,
) -> Exported:
    """RLinf's advantages: `episode_index`, `frame_index`, `advantage`, `advantage_continuous`; frames without are left
    out. Raises ConfigError as `export_lerobot`.
    """
    path = _target(target, made.folder / rlinf_name(tag), force)
    missing = _missing(made, "advantage", "RLinf looks every frame up", allow_missing)
    notes = _subset_notes(made, "RLinf looks every frame up")
    rows = undefined = 0
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, RLINF) as writer:
        for batch in made.batches(["episode_index", "frame_index", "positive", "advantage"]):
            defined = batch.filter(pc.and_(batch.column("positive").is_valid(), batch.column("advantage").is_valid()))
            rows += defined.num_rows
            undefined += batch.num_rows - defined.num_rows
            arrays = [defined.column(i) for i in range(3)] + [defined.column("advantage").cast(pa.float64())]
            writer.write_batch(pa.record_batch(arrays, schema=RLINF))
    if undefined:
        notes.append(f"{undefined} frames have no advantage and are left out")
    return Exported(path, rows, 0, missing, tuple(notes))


def rlinf_name(tag: str) -> str:
    """advantages_{tag}.parquet. Raises ConfigError for a tag that is no name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", tag):
        raise ConfigError(f"--tag is {tag!r}, want letters, digits, _, - and dots")
    return f"advantages_{tag}.parquet"


def rlinf_config(made: Made, tag: str) -> str:
    """What belongs into the dataset's meta/mixture_config.yaml, as RLinf's own tools write it."""
    thresholds = sorted(set(made.summary["advantage"]["positive_thresholds"].values()))
    one = f"{thresholds[0]:.6g}" if len(thresholds) == 1 else "null  # one per task: see summary.json"
    share = made.summary["settings"]["positive_share"]
    return f"tags:\n  {tag}:\n    unified_threshold: {one}\n    positive_quantile: {share:g}"


def export_csv(made: Made, target: Path | None = None, *, force: bool = False) -> tuple[Exported, Exported]:
    """frames.csv and episodes.csv in a folder: the tables, an empty cell for what is undefined.

    People open these in spreadsheets. So a text shows what does not print as an escape, and one that a spreadsheet
    would compute (`=`, `+`, `-`, `@` at its start) has an apostrophe before it; parquet has texts as they are.
    """
    folder = target or made.folder
    frames, episodes = (_target(folder / name, None, force) for name in ("frames.csv", "episodes.csv"))
    rows = 0
    with (
        pq.ParquetFile(made.folder / "frames.parquet") as file,
        whole_file(frames) as temporary,
        pcsv.CSVWriter(temporary, file.schema_arrow) as writer,
    ):
        for batch in file.iter_batches():
            writer.write_batch(pa.record_batch([_cells(column) for column in batch.columns], schema=batch.schema))
            rows += batch.num_rows
    table = pq.read_table(made.folder / "episodes.parquet")
    look = pa.array(["; ".join(texts) for texts in table["look"].to_pylist()], pa.string())
    table = table.set_column(table.schema.get_field_index("look"), "look", look)
    table = pa.table([_cells(column.combine_chunks()) for column in table.columns], schema=table.schema)
    with whole_file(episodes) as temporary:
        pcsv.write_csv(table, temporary)
    return Exported(frames, rows, 0, ()), Exported(episodes, table.num_rows, 0, ())


def _cells(column: pa.Array) -> pa.Array:
    """A column as CSV has it: texts made harmless, everything else as it is."""
    if not pa.types.is_string(column.type):
        return column
    shown = {text: _cell(text) for text in column.unique().to_pylist() if text is not None}
    return pa.array([None if text is None else shown[text] for text in column.to_pylist()], pa.string())


def _cell(text: str) -> str:
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{plain}" if plain[:1] in ("=", "+", "-", "@") else plain


def dataset_root(made: Made) -> Path:
    """The folder of the LeRobot dataset that was labelled, its frames where they were.

    Raises ConfigError where it is not a folder on this machine, DatasetError where an episode lies elsewhere by now:
    its labels would go to other frames.
    """
    dataset = made.summary["provenance"]["run"].get("dataset") or {}
    uri = str(dataset.get("dataset") or "")
    root = Path(uri.removeprefix("lerobot:")).expanduser()
    if not uri.startswith("lerobot:") or not (root / "meta" / "info.json").is_file():
        said = f"'{uri}' is no LeRobot dataset in a folder of this machine" if uri else "no dataset was labelled"
        raise ConfigError(f"{made.run}: {said}; write the file elsewhere with --target")
    there = open_stored(made.run).episodes()
    by_index = {row["episode_index"]: row for row in made.episodes()}
    first: dict[int, int] = {}
    for batch in made.batches(["index", "episode_index", "frame_index"]):
        starts = batch.filter(pc.equal(batch.column("frame_index"), 0))
        first |= dict(zip(starts.column("episode_index").to_pylist(), starts.column("index").to_pylist(), strict=True))
    for episode_index, begin in first.items():
        row = by_index[episode_index]
        now = place(there[row["episode_id"]]) if row["episode_id"] in there else None
        want = {"episode_index": episode_index, "dataset_from_index": begin}
        length = there[row["episode_id"]].extra.get("length") if now else None
        if now != want or length != row["num_frames"]:
            raise DatasetError(
                f"{root}: {row['episode_id']} had {row['num_frames']} frames from frame {begin} of the dataset on when "
                f"it was scored, and is not so by now; run topreward label again"
            )
    return root


def _target(given: Path | None, usual: Path | None, force: bool) -> Path:
    path = (given or usual or Path()).expanduser()
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, want a file")
    if path.exists() and not force:
        raise ConfigError(f"{path}: is there already; --force writes over it")
    return path


def _missing(made: Made, column: str, why: str, allowed: bool) -> tuple[str, ...]:
    """Ids of the episodes without a value in a column. Raises ConfigError where that is not allowed, or all are."""
    if not made.summary["complete"]:
        left = made.summary["episodes_planned"] - made.summary["episodes"]
        raise ConfigError(f"{made.run}: {left} episodes are not measured yet; go on with the run, then derive again")
    filled: set[int] = set()
    counted = True
    for batch in made.batches(["index", "episode_index", column]):
        valid = batch.filter(batch.column(column).is_valid())
        filled |= set(valid.column("episode_index").unique().to_pylist())
        counted &= batch.column("index").null_count == 0
    if not counted:
        raise ConfigError(
            f"{made.run}: its episodes are not of a LeRobot dataset, or of one that is not known any more, so that no "
            "frame has a number in it; --to csv writes tables of anything"
        )
    rows = made.episodes()
    empty = [row for row in rows if row["episode_index"] not in filled]
    if len(empty) == len(rows):
        notes = "; ".join(made.summary["notes"])
        raise ConfigError(f"{made.run}: {column} is undefined everywhere ({notes or 'no episode has labels'})")
    if empty and not allowed:
        first = empty[0]
        reason = first["error"] or first["failure"] or "undefined"
        raise ConfigError(
            f"{made.run}: {len(empty)} of {len(rows)} episodes have no {column} ({first['episode_id']}: {reason}). "
            f"{why}: mend them and run again, or say --allow-missing"
        )
    return tuple(row["episode_id"] for row in empty)


def _subset_notes(made: Made, others: str) -> list[str]:
    """What to say where only some of a dataset's episodes were labelled."""
    dataset = made.summary["provenance"]["run"].get("dataset") or {}
    chosen = [f"--{key}" for key in ("episodes", "subset", "split", "examples") if dataset.get(key) is not None]
    chosen += ["--skip-unlabelled"] if dataset.get("skipped") else []
    if not chosen:
        return []
    return [f"only some episodes of the dataset were labelled ({', '.join(chosen)}): train on those, for {others}"]


def sample_weighting(made: Made, path: Path) -> str:
    """The block of a LeRobot training configuration that reads the file."""
    rabc = made.summary["rabc"]
    kappa = np.format_float_positional(rabc["kappa"], trim="0")
    return (
        "sample_weighting:\n"
        "  type: rabc\n"
        f"  progress_path: {path}\n"
        "  head_mode: sparse\n"
        f"  kappa: {kappa}\n"
        "  epsilon: 0.000001"
    )
