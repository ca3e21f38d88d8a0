"""JSON lines and parquet files → plain values, or one error that names the file.

Knows nothing of what the values mean. Files come from strangers: whatever a library raises over a damaged one
becomes a DatasetError, and what a parquet file would decode to is held to the limits before it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from topreward.datasets.messages import one_line
from topreward.errors import DatasetError
from topreward.files import read_text
from topreward.limits import hold, limit

# What pyarrow raises over damaged files: its own, those of the file system, and bad UTF-8 in names and texts.
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError)

Kind = Literal["integers", "floating-point seconds", "texts", "lists of texts"]

_AT_ONCE = 64 * 2**20
"""Bytes that a batch of texts may decode to, should every row hold the longest of them."""


def json_lines(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) for every line that is not blank. Raises DatasetError naming the line."""
    for number, line in enumerate(read_text(path, error=DatasetError, name=where).split("\n"), start=1):
        if not line.strip():
            continue
        hold("max_episodes", number, f"{where}: its lines", error=DatasetError)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # also numbers of too many digits, and deep nesting
            raise DatasetError(f"{where}, line {number}: not JSON ({one_line(error)})") from error
        if not isinstance(value, dict):
            raise DatasetError(f"{where}, line {number}: holds a {type(value).__name__}, want an object")
        yield number, value


def column_names(path: Path, where: str) -> list[str]:
    """The columns that a parquet file has. Raises DatasetError where it cannot be read."""
    try:
        return list(pq.read_schema(path).names)
    except PARQUET_ERRORS as error:
        raise _unreadable(where, error) from error


def read_columns(path: Path, kinds: Mapping[str, Kind], where: str) -> pa.Table:
    """Some columns of a parquet file, and no other.

    Raises DatasetError naming the columns it lacks, one that is of another kind, and what would decode to more than
    the limits allow: a run of a billion equal values takes a few bytes on disk.
    """
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        missing = [name for name in kinds if name not in names]
        if not missing:
            for name, kind in kinds.items():
                if names.count(name) > 1:
                    raise DatasetError(f"{where}: the column {name} appears more than once")
                if not _fits(file.schema_arrow.field(name).type, kind):
                    raise DatasetError(
                        f"{where}: the column {name} is {one_line(file.schema_arrow.field(name).type)}, want {kind}"
                    )
            rows = _batch_rows(file, kinds, where)
            return _read(file, list(kinds), rows, where)
    except DatasetError:  # which is a ValueError too
        raise
    except PARQUET_ERRORS as error:
        raise _unreadable(where, error) from error
    shown = f"{', '.join(names[:40])}{' …' if len(names) > 40 else ''}"
    raise DatasetError(f"{where}: the columns {', '.join(missing)} are missing; it has {shown}")


def values_of(file: pq.ParquetFile, name: str) -> tuple[int, int]:
    """What a parquet file claims of a column: its values, leaves of lists counted each, and the bytes of its largest
    part (of a row group) when it is decompressed, which no single value can exceed."""
    values, largest = 0, 0
    for group in range(file.num_row_groups):
        part = file.metadata.row_group(group)
        for number in range(part.num_columns):
            leaf = part.column(number)
            if leaf.path_in_schema == name or leaf.path_in_schema.startswith(f"{name}."):
                values += max(leaf.num_values, part.num_rows)
                largest = max(largest, leaf.total_uncompressed_size)
    return values, largest


def _batch_rows(file: pq.ParquetFile, kinds: Mapping[str, Kind], where: str) -> int:
    """Rows to read at once. Raises DatasetError where the columns are too large together."""
    total, rows = 0, 65_536
    for name, kind in kinds.items():
        values, largest = values_of(file, name)
        total += 8 * values
        if "texts" in kind:
            hold("max_array_bytes", largest, f"{where}: the column {name}", error=DatasetError)
            rows = min(rows, max(1, _AT_ONCE // max(largest, 1)))
    hold("max_array_bytes", total, f"{where}: its columns {', '.join(kinds)}", error=DatasetError)
    return rows


def _read(file: pq.ParquetFile, names: list[str], rows: int, where: str) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    texts = 0
    for batch in file.iter_batches(batch_size=rows, columns=names):
        texts += sum(column.nbytes for column in batch.columns if not pa.types.is_primitive(column.type))
        # A dictionary of one long text and a million references to it is short on disk, too.
        hold("max_text_bytes", texts, f"{where}: its texts", error=DatasetError)
        batches.append(batch)
    fields = [field for field in file.schema_arrow if field.name in names]
    table = pa.Table.from_batches(batches) if batches else pa.schema(fields).empty_table()
    table.validate(full=True)  # texts that are no UTF-8 would only show when they are looked at
    return table


def _fits(kind: pa.DataType, wanted: Kind) -> bool:
    if wanted == "integers":
        return bool(pa.types.is_integer(kind))
    if wanted == "floating-point seconds":
        return bool(pa.types.is_floating(kind))
    if wanted == "lists of texts":
        return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _fits(kind.value_type, "texts")
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _unreadable(where: str, error: BaseException) -> DatasetError:
    return DatasetError(f"{where}: not a readable parquet file ({one_line(error)})")


def image_batch_rows(file: pq.ParquetFile, name: str, most: int, where: str) -> int:
    """Rows of a column of pictures to read at once, `most` at most. Raises DatasetError where a part is too large."""
    _, largest = values_of(file, name)
    hold("max_array_bytes", largest, f"{where}: the column {name}", error=DatasetError)
    return min(most, max(1, int(limit("max_array_bytes") // 8) // max(largest, 1)))
