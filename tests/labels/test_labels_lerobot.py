"""LeRobot's own reader takes our file, and weighs frames as our column says.

`make .venv-rabc/.installed` makes the environment that it runs in; without make it is made here. In CI it must be
there; elsewhere the test says why it was skipped.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelled import name, some, write_run
from places import ROOT
from topreward.errors import ConfigError
from topreward.jobs.stored import open_stored
from topreward.labels.derive import derive
from topreward.labels.export import export_lerobot, open_labels, sample_weighting
from topreward.labels.settings import LabelSettings
from topreward.labels.write import write_labels

PACKAGES = ("lerobot==0.4.4", "pandas==3.1.1", "python-dateutil==4.0.0", "six==1.17.0")

READ = """
import json, sys
import numpy as np
from lerobot.utils.rabc import RABCWeights
out = []
for path, chunk, kappa, count in json.loads(sys.argv[1]):
    reader = RABCWeights(path, chunk_size=chunk, kappa=kappa, device="cpu")
    deltas = np.array([reader._compute_delta(i) for i in range(count)], dtype=np.float32)
    batch = {"index": np.arange(count)}
    scaled, told = reader.compute_batch_weights(batch)
    raw = reader._compute_weights(deltas)
    out.append([raw.tolist(), scaled.tolist(), float(reader.delta_mean), float(reader.delta_std)])
print(json.dumps(out))
"""


@pytest.fixture(scope="session")
def lerobot_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has LeRobot's reader, and borrows torch and pyarrow from this one."""
    made = ROOT / ".venv-rabc" / "bin" / "python"
    if made.exists():
        return made
    folder = tmp_path_factory.mktemp("lerobot-env")
    python = folder / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=120)
        own = [str(python), "-c", "import site; print(site.getsitepackages()[0])"]
        packages = subprocess.run(own, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
        (Path(packages) / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
        subprocess.run(install, check=True, capture_output=True, timeout=200)
    except (OSError, subprocess.SubprocessError) as error:
        why = f"LeRobot's reader could not be installed: {error}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return python


def test_lerobots_reader_has_the_weights_of_our_column(lerobot_python: Path, tmp_path: Path) -> None:
    """Three chunk sizes, one of them longer than any episode; an episode in error, a failed answer, and causal labels,
    whose first frames have no progress."""
    made = some(9, seed=4)
    made[2] = replace(made[2], error="cut off")
    made[5] = replace(made[5], values=[np.nan] * len(made[5].scored), failure={"kind": "refusal", "reason": "no"})
    run = write_run(tmp_path / "run", made)
    count = sum(m.frames for m in made)
    asked: list[tuple[str, int, float, int]] = []
    ours: list[tuple[np.ndarray, dict[str, Any]]] = []
    for chunk, kappa, causal in ((1, 0.02, False), (13, 0.4, True), (50, 0.9, False)):
        settings = LabelSettings(chunk_size=chunk, kappa=kappa, causal=causal)
        folder = write_labels(derive(open_stored(run), "topreward", settings), run)
        one = export_lerobot(open_labels(run), tmp_path / f"{chunk}.parquet", allow_missing=True)
        frames = pq.read_table(folder / "frames.parquet", columns=["index", "weight_rabc"])
        weights = np.ones(count)  # frames that the file does not hold
        weights[frames["index"].to_numpy()] = frames["weight_rabc"].to_numpy()
        ours.append((weights, json.loads((folder / "summary.json").read_text())["rabc"]))
        asked.append((str(one.path), chunk, kappa, count))
    done = subprocess.run([str(lerobot_python), "-c", READ, json.dumps(asked)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for (weights, rabc), (raw, scaled, mean, std) in zip(ours, json.loads(done.stdout), strict=True):
        np.testing.assert_allclose(weights, raw, atol=1e-6)
        assert {0.0, 1.0} < set(np.round(weights, 6))  # all three kinds of weight are there
        np.testing.assert_allclose(weights * count / (weights.sum() + 1e-6), scaled, rtol=1e-5)
        assert (rabc["gain_mean"], rabc["gain_std"]) == (pytest.approx(mean), pytest.approx(std))


def test_the_file_is_what_lerobot_writes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", some(4))
    folder = write_labels(derive(open_stored(run), "topreward"), run)
    made = open_labels(run)
    one = export_lerobot(made)
    assert one.path == folder / "topreward_progress.parquet"
    table = pq.read_table(one.path)
    want = [("index", "int64"), ("episode_index", "int64"), ("frame_index", "int64"), ("progress_sparse", "float")]
    assert [(field.name, str(field.type)) for field in table.schema] == want
    assert table.schema.metadata[b"reward_model_path"] == b"none"
    assert json.loads(table.schema.metadata[b"topreward"])["column"] == "progress_anchored"
    frames = pq.read_table(folder / "frames.parquet")
    for ours, theirs in (("index", "index"), ("progress_anchored", "progress_sparse")):
        np.testing.assert_array_equal(frames[ours].to_numpy(), table[theirs].to_numpy())
    assert sample_weighting(made, Path("p.parquet")).splitlines()[:3] == [
        "sample_weighting:",
        "  type: rabc",
        "  progress_path: p.parquet",
    ]
    with pytest.raises(ConfigError, match="is there already; --force"):
        export_lerobot(made)
    again = export_lerobot(made, column="progress", force=True)
    np.testing.assert_array_equal(
        frames["progress"].to_numpy(), pq.read_table(again.path)["progress_sparse"].to_numpy()
    )
    assert "derive with --column progress" in " ".join(again.notes)
    with pytest.raises(ConfigError, match="did you mean 'progress'"):
        export_lerobot(made, column="progres", force=True)


def test_what_is_missing_is_refused_or_marked(tmp_path: Path) -> None:
    made = some(5)
    made[1] = replace(made[1], error="cut off")
    made[3] = replace(made[3], values=[np.nan] * len(made[3].scored))
    run = write_run(tmp_path / "run", made)
    write_labels(derive(open_stored(run), "topreward"), run)
    with pytest.raises(ConfigError, match=r"2 of 5 episodes have no progress_anchored \(episode_000001: cut off\)"):
        export_lerobot(open_labels(run))
    one = export_lerobot(open_labels(run), allow_missing=True)
    assert one.missing == (name(1), name(3))
    table = pq.read_table(one.path)
    values = table["progress_sparse"].to_numpy()
    assert one.undefined == made[3].frames == int(np.isnan(values).sum())
    assert set(table["episode_index"].to_pylist()) == {0, 2, 3, 4}
    assert "weighs a frame without progress 1" in " ".join(one.notes)


def test_nothing_is_exported_of_half_a_run_or_of_undefined_progress(tmp_path: Path) -> None:
    half = write_run(tmp_path / "half", some(3), planned=4)
    write_labels(derive(open_stored(half), "topreward"), half)
    with pytest.raises(ConfigError, match="1 episodes are not measured yet"):
        export_lerobot(open_labels(half))
    falling = [replace(m, values=m.values[::-1]) for m in some(3)]
    run = write_run(tmp_path / "run", falling)
    write_labels(derive(open_stored(run), "topreward"), run)
    with pytest.raises(ConfigError, match="progress_anchored is undefined everywhere"):
        export_lerobot(open_labels(run))
    assert export_lerobot(open_labels(run), column="progress").undefined == 0


def test_a_dataset_that_counts_no_frames_has_no_file_for_lerobot(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", some(3), lerobot=False)
    write_labels(derive(open_stored(run), "topreward"), run)
    with pytest.raises(ConfigError, match="not of a LeRobot dataset"):
        export_lerobot(open_labels(run))


def test_labels_of_a_run_that_went_on_are_made_again_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", some(4), planned=6)
    write_labels(derive(open_stored(run), "topreward"), run)
    write_run(tmp_path / "run", some(6))
    with pytest.raises(ConfigError, match=r"of 4 episodes, 6 are measured by now; .* topreward derive"):
        open_labels(run)
    with pytest.raises(ConfigError, match="holds no labels yet"):
        open_labels(write_run(tmp_path / "other", some(2)))


def test_percent_becomes_a_share(tmp_path: Path) -> None:
    made = [replace(m, unit="percent", values=np.linspace(0, 80, len(m.scored)).tolist()) for m in some(3)]
    run = write_run(tmp_path / "run", made, base="gvl")
    write_labels(derive(open_stored(run), "gvl", LabelSettings(column="percent")), run)
    values = pq.read_table(export_lerobot(open_labels(run)).path)["progress_sparse"]
    assert values.type == pa.float32()
    assert max(values.to_pylist()) == pytest.approx(0.8)
