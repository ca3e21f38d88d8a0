"""Files are whole or absent, and what the system refuses is one line."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from topreward.errors import ConfigError
from topreward.files import check_target, sweep, whole_file, write_atomically
from topreward.report.plots import save_figure


@pytest.fixture
def full() -> Iterator[None]:
    """No file may grow beyond 4 KiB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def parquet(path: Path) -> None:
    table = pa.table({"a": pa.array(np.random.default_rng(0).random(10_000))})
    with whole_file(path) as temporary:
        pq.write_table(table, temporary)


def picture(path: Path) -> None:
    figure = Figure()
    figure.subplots().imshow(np.random.default_rng(0).random((200, 200)))
    save_figure(figure, path)


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("write", [lambda path: write_atomically(path, "x" * 10_000), parquet, picture])
def test_a_disk_that_is_full_leaves_the_old_file_and_one_line(tmp_path: Path, write: object) -> None:
    target = tmp_path / "a.png"
    target.write_text("old")
    assert callable(write)
    with pytest.raises(ConfigError, match="cannot be written") as told:
        write(target)
    assert "\n" not in str(told.value)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_no_file_can_take_the_place_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = [tmp_path, Path("/dev/null"), tmp_path / "file" / "x", tmp_path / ("n" * 300), f"{tmp_path}/a\0b"]
    for path in wrong:
        for refuse in (check_target, lambda path: write_atomically(path, "x")):
            with pytest.raises(ConfigError) as told:
                refuse(path)
            assert "\n" not in str(told.value)
    assert not Path("/dev/null").is_file()


def test_the_longest_name_and_half_a_character(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 255), "a\ud800")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"a\\ud800"


def test_what_is_being_written_is_not_swept_away(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a") as temporary:
        sweep(tmp_path, lambda name: name == "a")
        temporary.write_text("x")
    assert (tmp_path / "a").read_text() == "x"
