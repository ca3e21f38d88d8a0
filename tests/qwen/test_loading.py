"""Checkpoints laid out like the hub's, in both forms of the config files; and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from checkpoints import make_checkpoint, tiny_config
from clips import rolled_clip
from topreward.errors import ModelError
from topreward.estimators.topreward import TOPReward
from topreward.qwen.loading import ALIASES, load_checkpoint

CLIP = rolled_clip(count=40, height=48, width=64)
ONE = "pick up the cup"
V5 = int(transformers.__version__.split(".")[0]) >= 5


def copy(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a checkpoint folder with keys of its config.json changed."""
    shutil.copytree(folder, target)
    path = target / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if isinstance(value, dict):
            config[key].update(value)
        else:
            config[key] = value
    path.write_text(json.dumps(config))
    return target


def other_form(folder: Path, target: Path) -> Path:
    """The same config.json as the other major version of transformers writes it."""
    shutil.copytree(folder, target)
    path = target / "config.json"
    config = json.loads(path.read_text())
    text = config["text_config"]
    if V5:
        rope = text.pop("rope_parameters")
        text["rope_theta"] = rope.pop("rope_theta")
        text["rope_scaling"] = rope
        config["torch_dtype"] = config.pop("dtype", "float32")
        config["transformers_version"] = "4.57.6"
    else:
        rope = text.pop("rope_scaling")
        text["rope_parameters"] = {**rope, "rope_theta": text.pop("rope_theta")}
        config["dtype"] = config.pop("torch_dtype", None) or config.get("dtype", "float32")
        config["transformers_version"] = "5.23.0"
    path.write_text(json.dumps(config))
    return target


@pytest.mark.filterwarnings("ignore:transformers")
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_both_forms_of_the_config_give_the_same_values(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    native = TOPReward.from_pretrained(folder, device="cpu").score(CLIP, ONE)
    translated = TOPReward.from_pretrained(other_form(folder, tmp_path / "other"), device="cpu").score(CLIP, ONE)
    np.testing.assert_array_equal(native.values, translated.values)


def test_rope_theta_survives_the_translation(dense_folder: Path, tmp_path: Path) -> None:
    rope = "rope_parameters" if V5 else None
    changes = {rope: {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 1e4}}
    folder = copy(dense_folder, tmp_path / "a", text_config=changes if V5 else {"rope_theta": 1e4})
    native = TOPReward.from_pretrained(folder, device="cpu").score(CLIP, ONE)
    translated = TOPReward.from_pretrained(other_form(folder, tmp_path / "b"), device="cpu").score(CLIP, ONE)
    default = TOPReward.from_pretrained(dense_folder, device="cpu").score(CLIP, ONE)
    np.testing.assert_array_equal(native.values, translated.values)
    assert np.abs(native.values - default.values).max() > 0.01


def test_sharded_weights_load(dense_folder: Path, tmp_path: Path) -> None:
    whole = load_checkpoint(dense_folder, device="cpu")
    shutil.copytree(dense_folder, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    whole.model.save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    sharded = load_checkpoint(tmp_path / "sharded", device="cpu")
    for (name, a), (_, b) in zip(whole.model.named_parameters(), sharded.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_dtype_is_float32_on_a_cpu_unless_asked(dense_folder: Path, tmp_path: Path) -> None:
    stored = copy(dense_folder, tmp_path / "bf16", dtype="bfloat16")
    assert load_checkpoint(stored, device="cpu").model.dtype == torch.float32
    assert load_checkpoint(stored, device="cpu", dtype="auto").model.dtype == torch.bfloat16
    assert load_checkpoint(stored, device="cpu", dtype=torch.float16).model.dtype == torch.float16
    with pytest.raises(ModelError, match=r"dtype 'bf16' is unknown.+ float32, bfloat16, float16"):
        load_checkpoint(stored, device="cpu", dtype="bf16")


def test_bf16_reads_its_answer_in_fp32(dense_folder: Path) -> None:
    curve = TOPReward.from_pretrained(dense_folder, device="cpu", dtype="bfloat16").score(CLIP, ONE)
    full = TOPReward.from_pretrained(dense_folder, device="cpu").score(CLIP, ONE)
    coarse = torch.from_numpy(np.array(curve.values)).bfloat16().double().numpy()
    assert np.abs(coarse - curve.values).max() > 1e-3, "values fall on bf16's grid"
    assert np.abs(curve.values - full.values).max() < 2.0


def test_the_hub_is_read_by_revision_and_from_the_cache(
    dense_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = {"main": "a" * 40, "v2": "b" * 40}
    home = tmp_path / "hub" / "models--lab--tiny"
    for name, commit in commits.items():
        shutil.copytree(dense_folder, home / "snapshots" / commit)
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, commit in commits.items():
        checkpoint = load_checkpoint("lab/tiny", device="cpu", revision=name)
        assert checkpoint.provenance["revision"] == commit
        assert checkpoint.provenance["model"] == "lab/tiny"
    with pytest.raises(ModelError, match=r"lab/none: the hub cannot be reached, and its cache"):
        load_checkpoint("lab/none", device="cpu")


def test_aliases() -> None:
    assert ALIASES["qwen3-vl"] == "Qwen/Qwen3-VL-8B-Instruct"
    assert ALIASES["qwen3-vl-30b-a3b"] == "Qwen/Qwen3-VL-30B-A3B-Instruct"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "qwen2_5_vl"},
            "model type 'qwen2_5_vl' is not supported; Qwen3-VL Instruct, Qwen3.5 and 3.6 checkpoints work",
        ),
        ({"text_config": {"layer_types": ["linear_attention", "full_attention"]}}, "linear_attention"),
        ({"text_config": {"use_sliding_window": True, "sliding_window": 128}}, "sliding-window"),
        ({"vision_config": {"patch_size": 14}}, "patch_size is 14"),
    ],
)
def test_other_kinds_are_refused(dense_folder: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_checkpoint(copy(dense_folder, tmp_path / "other", **changes))


@pytest.mark.parametrize("by", ["name", "template"])
def test_thinking_checkpoints_are_refused(dense_folder: Path, tmp_path: Path, by: str) -> None:
    folder = tmp_path / ("Qwen3-VL-8B-Thinking" if by == "name" else "mine")
    shutil.copytree(dense_folder, folder)
    if by == "template":
        template = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(ModelError, match="Thinking checkpoint"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not readable as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds a list"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "not a tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors there"),
        (lambda f: (f / "model.safetensors").write_bytes(b"12345678rubbish"), "mine.+not readable as safetensors"),
    ],
    ids=["no config", "half config", "list config", "no tokenizer", "bad tokenizer", "no weights", "bad weights"],
)
def test_broken_folders_are_one_line(dense_folder: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(dense_folder, folder)
    spoil(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_names_that_are_nothing() -> None:
    with pytest.raises(
        ModelError, match=r"'qwen3-vl-4' is no folder, hub id or alias \(did you mean 'qwen3-vl-4b'\?\)"
    ):
        load_checkpoint("qwen3-vl-4")
    with pytest.raises(ModelError, match="no folder"):
        load_checkpoint("./missing/folder")


def test_devices_and_quantizations_that_are_not_there(dense_folder: Path) -> None:
    with pytest.raises(ModelError, match="device 'gpu' is unknown; use cpu, cuda"):
        load_checkpoint(dense_folder, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="device 'cuda' was asked for, but torch"):
            load_checkpoint(dense_folder, device="cuda")
    with pytest.raises(ModelError, match=r"quantization 'nf5' is unknown \(did you mean 'nf4'\?\)"):
        load_checkpoint(dense_folder, device="cpu", quantization="nf5")  # type: ignore[arg-type]


def test_quantization_without_bitsandbytes_says_so(dense_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match="needs bitsandbytes"):
        load_checkpoint(dense_folder, device="cpu", quantization="nf4")


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_weights_stay_near(tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("bitsandbytes")
    folder = make_checkpoint(tmp_path, intermediate_size=192)  # whole blocks of 64
    full = TOPReward.from_pretrained(folder, device="cpu")
    small = TOPReward.from_pretrained(folder, device="cpu", quantization=kind)
    layer = small.model.text.layers[0].mlp.gate_proj
    assert type(layer).__module__.startswith("bitsandbytes")
    assert type(small.model.model.lm_head) is torch.nn.Linear
    a, b = full.score(CLIP, ONE).values, small.score(CLIP, ONE).values
    assert 0 < np.abs(a - b).max() < 12
    assert small.score(CLIP, ONE).provenance["quantization"] == kind


@pytest.mark.parametrize("way", ["option", "folder"])
def test_lora_adapters_are_merged(dense_folder: Path, tmp_path: Path, way: str) -> None:
    peft = pytest.importorskip("peft")
    base = load_checkpoint(dense_folder, device="cpu").model
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(base, config)
    wrapped.peft_config["default"].base_model_name_or_path = str(dense_folder)
    wrapped.save_pretrained(tmp_path / "lora")
    if way == "option":
        estimator = TOPReward.from_pretrained(dense_folder, device="cpu", adapter=str(tmp_path / "lora"))
    else:
        estimator = TOPReward.from_pretrained(tmp_path / "lora", device="cpu")
    plain = TOPReward.from_pretrained(dense_folder, device="cpu").score(CLIP, ONE)
    fast = estimator.score(CLIP, ONE)
    assert np.abs(fast.values - plain.values).max() > 0.1
    np.testing.assert_allclose(fast.values, estimator.score(CLIP, ONE, one_pass=False).values, atol=1e-4)
    assert fast.provenance["adapter"] == str(tmp_path / "lora")
    with pytest.raises(ModelError, match="not an adapter"):
        load_checkpoint(dense_folder, device="cpu", adapter=str(tmp_path / "nothing"))


def test_the_head_of_a_bf16_model_is_read_in_slices(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, tie_word_embeddings=False)
    estimator = TOPReward.from_pretrained(folder, device="cpu", dtype="bfloat16")
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    head = estimator.model.model.lm_head.weight
    expected = (hidden.float() @ head.float().T).log_softmax(-1)[:, [5, 7]]
    np.testing.assert_allclose(estimator.model.log_probs(hidden, (5, 7)), expected.numpy(), atol=1e-5)


@pytest.mark.skipif(V5, reason="transformers 5 reads its own form")
def test_experts_that_transformers_5_transposed_are_refused(moe_folder: Path, tmp_path: Path) -> None:
    folder = copy(moe_folder, tmp_path / "moe", text_config={"num_local_experts": 4})
    with pytest.raises(ModelError, match=r"saved by transformers 5, which stores experts transposed"):
        load_checkpoint(folder, device="cpu")


@pytest.mark.skipif(V5, reason="transformers 5 routes tokens to their experts alone")
def test_old_mixtures_warn(moe_folder: Path) -> None:
    with pytest.warns(UserWarning, match="all experts"):
        curve = TOPReward.from_pretrained(moe_folder, device="cpu").score(CLIP, ONE)
    assert "all experts" in curve.notes[0]


def test_the_tiny_config_is_the_recipes() -> None:
    text = tiny_config().text_config
    assert (text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads) == (4, 4, 2)
