"""LoRA adapters: applied to the last tensor, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clips import rolled_clip
from topreward.errors import ModelError
from topreward.estimators.topreward import TOPReward
from topreward.qwen.loading import load_checkpoint

peft = pytest.importorskip("peft")
Tensors = dict[str, torch.Tensor]
CLIP = rolled_clip(count=12, height=48, width=64)
ONE = "pick up the cup"
Q = "base_model.model.model.language_model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def lora(dense_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(load_checkpoint(dense_folder, device="cpu").model, config)
    wrapped.peft_config["default"].base_model_name_or_path = str(dense_folder)
    wrapped.save_pretrained(folder)
    return folder


def changed(lora: Path, target: Path, change: Callable[[Tensors], object] = len, **config: Any) -> Path:
    shutil.copytree(lora, target)
    tensors = load_file(target / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, target / "adapter_model.safetensors")
    path = target / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return target


def refused(dense_folder: Path, adapter: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        TOPReward.from_pretrained(dense_folder, device="cpu", adapter=str(adapter))
    assert "\n" not in str(caught.value)


def test_every_tensor_is_applied_or_named(dense_folder: Path, lora: Path, tmp_path: Path) -> None:
    a, b = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"

    def rename_all(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace("language_model.layers", "layers")] = tensors.pop(name)

    refused(dense_folder, changed(lora, tmp_path / "1", lambda t: t.pop(a)), f"1 tensor missing: {a}$")
    refused(dense_folder, changed(lora, tmp_path / "2", lambda t: t.pop(b)), f"1 tensor missing: {b}$")
    refused(
        dense_folder, changed(lora, tmp_path / "3", rename_all), r"16 tensors missing: .+; 16 tensors without a place"
    )
    more = {a.replace("q_proj", "o_proj"): torch.ones(4, 64)}
    refused(dense_folder, changed(lora, tmp_path / "4", lambda t: t.update(more)), r"1 tensor without a place.+o_proj")
    wide = {a: torch.ones(5, 64)}
    refused(dense_folder, changed(lora, tmp_path / "5", lambda t: t.update(wide)), r"q_proj")
    fewer = changed(lora, tmp_path / "6", target_modules=r".*layers\.[01]\.self_attn\.(q|v)_proj")
    refused(dense_folder, fewer, r"8 tensors without a place")
    none = changed(lora, tmp_path / "7", target_modules="rubbish")
    refused(dense_folder, none, "not an adapter for this model")
    more_modules = changed(lora, tmp_path / "8", target_modules=["q_proj", "v_proj", "k_proj"])
    refused(dense_folder, more_modules, r"8 tensors missing: .+k_proj")
    rank = changed(lora, tmp_path / "9", r=8)
    refused(dense_folder, rank, "not an adapter|unlike")

    def nan(tensors: Tensors) -> None:
        tensors[a][0, 0] = float("nan")

    refused(dense_folder, changed(lora, tmp_path / "10", nan), r"NaN or infinite: .+layers\.1\.self_attn\.q_proj")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3', only LORA"),
        ({"peft_type": ["LORA"]}, "peft_type"),
        ({"r": 10**12}, "rank 1000000000000, its tensors' lengths"),
        ({"r": -1}, "rank -1"),
        ({"r": "4"}, "rank '4'"),
        ({"rank_pattern": {"q_proj": 10**12}}, "rank 1000000000000"),
        ({"rank_pattern": 10**12}, "rank 1000000000000"),
        ({"layer_replication": [[0, 4], [2, 4]]}, "replicates layers"),
        ({"target_modules": 7}, "not an adapter"),
        ({"lora_alpha": "much"}, "not an adapter"),
        ({"lora_alpha": float("nan")}, "NaN or infinite"),
        ({"use_novelty": True}, "use_novelty, unknown to this peft"),
    ],
)
def test_configs_that_make_no_sense(
    dense_folder: Path, lora: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    refused(dense_folder, changed(lora, tmp_path / "a", **config), message)


def test_files_that_are_not_there_or_pickled(dense_folder: Path, lora: Path, tmp_path: Path) -> None:
    pickled = changed(lora, tmp_path / "a")
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    refused(dense_folder, pickled, r"no adapter_model.safetensors there; .+adapter_model.bin is pickled, and not read")
    bare = changed(lora, tmp_path / "b")
    (bare / "adapter_config.json").unlink()
    refused(dense_folder, bare, "no adapter_config.json there")
    half = changed(lora, tmp_path / "c")
    (half / "adapter_config.json").write_text('{"peft_type": "LORA"')
    refused(dense_folder, half, "not readable as JSON")
    with pytest.raises(ModelError, match="not readable as JSON"):
        TOPReward.from_pretrained(half, device="cpu")
    for base in (None, 7, ""):
        path = changed(lora, tmp_path / f"d{base}", base_model_name_or_path=base)
        with pytest.raises(ModelError, match="names no base_model_name_or_path"):
            TOPReward.from_pretrained(path, device="cpu")
    refused(dense_folder, tmp_path / "x\0y", "not an adapter")


def test_a_folder_is_a_model_or_an_adapter(dense_folder: Path, lora: Path, tmp_path: Path) -> None:
    both = shutil.copytree(dense_folder, tmp_path / "both")
    shutil.copy(lora / "adapter_config.json", both)
    with pytest.raises(ModelError, match=r"holds adapter_config.json beside config.json"):
        TOPReward.from_pretrained(both, device="cpu")
    with pytest.raises(ModelError, match="is an adapter itself"):
        TOPReward.from_pretrained(lora, device="cpu", adapter=str(lora))


def test_what_a_file_may_hold_besides(dense_folder: Path, lora: Path, tmp_path: Path) -> None:
    """A whole head of its own (`modules_to_save`), and half-precision tensors."""
    torch.manual_seed(1)
    base = load_checkpoint(dense_folder, device="cpu").model
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["merger"], init_lora_weights=False)
    wrapped = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(1.5)
    wrapped.save_pretrained(tmp_path / "saved")
    plain = TOPReward.from_pretrained(dense_folder, device="cpu").score(CLIP, ONE).values
    merged = TOPReward.from_pretrained(dense_folder, device="cpu", adapter=str(tmp_path / "saved"))
    assert np.abs(merged.score(CLIP, ONE).values - plain).max() > 0.1

    def halve(tensors: Tensors) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    half = TOPReward.from_pretrained(dense_folder, device="cpu", adapter=str(changed(lora, tmp_path / "half", halve)))
    provenance = half.score(CLIP, ONE).provenance
    assert len(provenance["adapter_fingerprint"]) == 16
    assert provenance["adapter_revision"] is None
