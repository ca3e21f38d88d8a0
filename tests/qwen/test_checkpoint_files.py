"""Files of a checkpoint that are missing, broken, elsewhere or pickled; names that are none; and silence."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from topreward.errors import ModelError
from topreward.estimators.topreward import TOPReward
from topreward.qwen.files import Files


def refused(name: str | Path, message: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        TOPReward.from_pretrained(name, device="cpu", **options)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200


@pytest.fixture
def sharded(dense_folder: Path, tmp_path: Path) -> Path:
    """Two shards and their index."""
    folder = tmp_path / "sharded"
    shutil.copytree(dense_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(dense_folder / "model.safetensors")
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in sorted(set(places.values())):
        save_file({n: t for n, t in tensors.items() if places[n] == file}, folder / file, {"format": "pt"})
    write_index(folder, places)
    return folder


def write_index(folder: Path, places: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def places(folder: Path) -> dict[str, str]:
    read: dict[str, str] = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return read


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.at),)


def test_shards_load(sharded: Path) -> None:
    TOPReward.from_pretrained(sharded, device="cpu")


def test_pickled_weights_are_not_opened(sharded: Path, dense_folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    (sharded / "x.bin").write_bytes(pickle.dumps(Trap(trap)))
    write_index(sharded, places(sharded) | {"model.language_model.norm.weight": "x.bin"})
    refused(sharded, r"index.json: names 'x.bin'; only safetensors are read")
    only = tmp_path / "only"
    shutil.copytree(dense_folder, only, ignore=shutil.ignore_patterns("*.safetensors"))
    (only / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(trap)))
    refused(only, r"no model.safetensors there; .+pytorch_model.bin is pickled, and not read")
    assert not trap.exists()


@pytest.mark.parametrize(
    "where", ["../out.safetensors", "/etc/out.safetensors", "sub/in.safetensors", "a\\b.safetensors"]
)
def test_an_index_names_files_of_its_folder(sharded: Path, where: str) -> None:
    write_index(sharded, dict.fromkeys(places(sharded), where))
    refused(sharded, "which is no file of this folder")


def test_links_out_of_the_folder(sharded: Path, dense_folder: Path, tmp_path: Path) -> None:
    [first, _] = sorted(sharded.glob("*.safetensors"))
    first.rename(tmp_path / "moved.safetensors")
    first.symlink_to(tmp_path / "moved.safetensors")
    refused(sharded, "is a link out of its folder")
    first.unlink()
    first.symlink_to(tmp_path / "nowhere.safetensors")
    refused(sharded, f"no {first.name} there")
    first.unlink()
    (tmp_path / "moved.safetensors").rename(sharded / "kept.safetensors")
    first.symlink_to(sharded / "kept.safetensors")
    TOPReward.from_pretrained(sharded, device="cpu")


def test_the_hubs_cache_links_into_its_blobs(dense_folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = (
        tmp_path / "models--lab--tiny" / "blobs",
        tmp_path / "models--lab--tiny" / "snapshots" / ("a" * 40),
    )
    shutil.copytree(dense_folder, snapshot)
    blobs.mkdir()
    (snapshot / "model.safetensors").rename(blobs / "1234")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    TOPReward.from_pretrained(snapshot, device="cpu")


@pytest.mark.parametrize("weight_map", [None, [], {}, {"a": 1}, "model.safetensors", {"a": "x\0.safetensors"}])
def test_indices_that_say_nothing(sharded: Path, weight_map: object) -> None:
    write_index(sharded, weight_map)
    refused(sharded, r"index.json: (weight_map must say|names)")


def test_an_index_and_its_files_agree(sharded: Path) -> None:
    whole, norm = places(sharded), "model.language_model.norm.weight"
    other = ({"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} - {whole[norm]}).pop()
    write_index(sharded, {k: v for k, v in whole.items() if k != norm})
    refused(sharded, f"1 tensor without a place in the model: {norm}")
    write_index(sharded, whole | {norm: other})
    refused(sharded, f"1 tensor unlike the model's: {norm}")
    write_index(sharded, whole | {"more": other})
    refused(sharded, "1 tensor missing: more")
    write_index(sharded, whole)
    tensors = load_file(sharded / other)
    save_file(tensors | {norm: load_file(sharded / whole[norm])[norm]}, sharded / other, {"format": "pt"})
    refused(sharded, f"holds tensor '{norm}', which .+ holds as well")


def header(fields: object, data: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"123",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 90_000_000) + b"{}",
        header([]),
        header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 8]}}, b"\0" * 8),
        header({"a": {"dtype": "F32", "shape": [2**63, 2], "data_offsets": [0, 8]}}, b"\0" * 8),
        header({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"\0" * 8),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**62]}}, b"\0" * 8),
        header({"a": {"dtype": "none", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    ],
)
def test_headers_that_lie(dense_folder: Path, tmp_path: Path, content: bytes) -> None:
    folder = shutil.copytree(dense_folder, tmp_path / "mine")
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, r"mine.model.safetensors: not readable as safetensors \(")


def test_a_header_beyond_the_limit(dense_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(dense_folder / "model.safetensors", tmp_path)
    monkeypatch.setenv("TOPREWARD_MAX_TEXT_BYTES", "1000")
    from topreward.qwen.headers import read_headers

    with pytest.raises(
        ModelError, match=r"its header: \d+ bytes, allowed are at most 1000 \(raise it with TOPREWARD_MAX"
    ):
        read_headers([tmp_path / "model.safetensors"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "[" * 100_000, "nested too deeply"),
        ("config.json", '{"model_type": "qwen3_vl", "text_config": ' + '{"a":' * 400 + "1" + "}" * 401, "mine: "),
        ("config.json", "9" * 5000, "not readable as JSON"),
        ("config.json", b"\xff\xfe\x00", "not readable as UTF-8"),
        ("config.json", "7", "holds a int, want an object"),
        ("tokenizer.json", "{", "not a tokenizer"),
        ("tokenizer.json", b"\xff\xfe", "not a tokenizer"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "no token|not a tokenizer"),
        ("tokenizer_config.json", "[]", "holds a list"),
        ("chat_template.jinja", b"\xff", "not readable as UTF-8"),
        ("generation_config.json", "{", "generation_config.json: not readable as JSON"),
        ("generation_config.json", "[]", "holds a list"),
        ("preprocessor_config.json", "rubbish", "not readable as JSON"),
        ("preprocessor_config.json", '{"image_mean": [0.48, 0.45, 0.4]}', r"image_mean is \[0.48"),
        ("video_preprocessor_config.json", '{"patch_size": 14}', "patch_size is 14"),
        ("processor_config.json", '{"video_processor": {"merge_size": 4}}', "merge_size is 4"),
    ],
)
def test_side_files_that_are_broken(
    dense_folder: Path, tmp_path: Path, file: str, content: str | bytes, message: str
) -> None:
    folder = shutil.copytree(dense_folder, tmp_path / "mine")
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(folder, message)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"])
def test_files_that_may_not_be_read(
    dense_folder: Path, tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(dense_folder, tmp_path / "mine")
    if os.geteuid() != 0:
        (folder / file).chmod(0)
    else:  # root reads all: what the system would say is said for it
        real = Path.open

        def opened(self: Path, *args: Any, **options: Any) -> Any:
            if self.name == file:
                raise PermissionError(13, "Permission denied", str(self))
            return real(self, *args, **options)

        monkeypatch.setattr(Path, "open", opened)
        if file == "tokenizer.json":
            (folder / file).unlink()
            (folder / file).symlink_to("/proc/self/mem")  # opens, and cannot be read
    refused(folder, "Permission denied|not a tokenizer")


@pytest.mark.parametrize(
    "name",
    ["", "a\0b", "lab/a\0b", "x" * 5000, "lab/" + "y" * 5000, "~nobody-here/x", "a\nb/c", "../" * 3000, "/", "."],
)
def test_names_that_are_nothing(name: str) -> None:
    refused(name, ".")
    if name:
        refused("demo", ".", adapter=name)


def test_orders_in_a_config_are_not_followed(dense_folder: Path, tmp_path: Path) -> None:
    """Kernels of somebody's repository, weights in another file, a list of 10^12 labels."""
    folder = shutil.copytree(dense_folder, tmp_path / "mine")
    config = json.loads((folder / "config.json").read_text())
    orders = {
        "attn_implementation": "lab/kernels",
        "_attn_implementation": "lab/kernels",
        "transformers_weights": "../x.safetensors",
        "num_labels": 10**12,
    }
    config |= orders
    config["text_config"] |= orders
    (folder / "config.json").write_text(json.dumps(config))
    mine, plain = (TOPReward.from_pretrained(f, device="cpu").model for f in (folder, dense_folder))
    assert mine.stock_kernels == plain.stock_kernels
    for (name, a), (_, b) in zip(mine.model.named_parameters(), plain.model.named_parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


QUIETLY = """
import sys
import topreward as tr
tr.TOPReward.from_pretrained({name!r}, device="cpu", **{options!r})
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging
assert logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
assert logging.get_verbosity() == logging.WARNING
"""


@pytest.mark.parametrize("way", ["demo", "nf4"])
def test_loading_says_nothing(way: str, sharded: Path) -> None:
    options = {"quantization": "nf4"} if way == "nf4" else {}
    if way == "nf4":
        pytest.importorskip("bitsandbytes")
    code = QUIETLY.format(name="demo" if way == "demo" else str(sharded), options=options)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_plain_folder_is_found(dense_folder: Path) -> None:
    files = Files(str(dense_folder))
    assert files.local
    assert files.commit is None
    assert [p.name for p in files.weights()] == ["model.safetensors"]
