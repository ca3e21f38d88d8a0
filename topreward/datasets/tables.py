"""JSON lines and parquet files → plain values, or one error that names the file.

Knows nothing of what the values mean. Files come from strangers: whatever a library raises over a damaged one
becomes a DatasetError.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from topreward.datasets.messages import one_line
from topreward.errors import DatasetError

# What pyarrow raises over damaged files: its own, those of the file system, and bad UTF-8 in names and texts.
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError)


def json_lines(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) for every line that is not blank. Raises DatasetError naming the line."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:  # also numbers of too many digits, and deep nesting
                    raise DatasetError(f"{where}, line {number}: not JSON ({one_line(error)})") from error
                if not isinstance(value, dict):
                    raise DatasetError(f"{where}, line {number}: holds a {type(value).__name__}, want an object")
                yield number, value
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{where}: cannot be read ({one_line(error)})") from error


def column_names(path: Path, where: str) -> list[str]:
    """The columns that a parquet file has. Raises DatasetError where it cannot be read."""
    try:
        return list(pq.read_schema(path).names)
    except PARQUET_ERRORS as error:
        raise DatasetError(f"{where}: not a readable parquet file ({one_line(error)})") from error


def read_columns(path: Path, columns: list[str] | None, where: str) -> pa.Table:
    """Some columns of a parquet file (all for None). Raises DatasetError naming the columns it lacks."""
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        missing = [name for name in columns or [] if name not in names]
        if not missing:
            table = file.read(columns=columns)
            table.validate(full=True)  # texts that are no UTF-8 would only show when they are looked at
            return table
    except PARQUET_ERRORS as error:
        raise DatasetError(f"{where}: not a readable parquet file ({one_line(error)})") from error
    raise DatasetError(f"{where}: the columns {', '.join(missing)} are missing; it has {', '.join(names)}")
