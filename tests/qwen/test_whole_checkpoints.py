"""A checkpoint is loaded whole, or refused with the names of what does not fit."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from checkpoints import make_checkpoint
from clips import rolled_clip
from topreward.config import load_protocol
from topreward.errors import ModelError
from topreward.estimators.topreward import TOPReward
from topreward.qwen.files import Files

Tensors = dict[str, torch.Tensor]
CLIP = rolled_clip(count=12, height=48, width=64)
ONE = "pick up the cup"
V5 = int(transformers.__version__.split(".")[0]) >= 5
ROPE = "rope_parameters" if V5 else "rope_scaling"
TEXT, VISION = "model.language_model.layers.2.", "model.visual.blocks.1."
SAMPLE = [
    "model.language_model.embed_tokens.weight",
    "model.language_model.norm.weight",
    f"{TEXT}self_attn.q_proj.weight",
    f"{TEXT}self_attn.k_norm.weight",
    f"{TEXT}mlp.down_proj.weight",
    f"{TEXT}input_layernorm.weight",
    "model.visual.patch_embed.proj.bias",
    "model.visual.pos_embed.weight",
    f"{VISION}attn.qkv.bias",
    f"{VISION}mlp.linear_fc1.weight",
    "model.visual.merger.norm.weight",
    "model.visual.deepstack_merger_list.2.linear_fc2.weight",
]


def load(folder: Path, **options: Any) -> TOPReward:
    return TOPReward.from_pretrained(folder, device="cpu", **options)


def changed(folder: Path, target: Path, change: Callable[[Tensors], object], **config: Any) -> Path:
    """A copy with other tensors, and with keys of config.json's sections set."""
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    configure(target, **config)
    return target


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for section, values in changes.items():
        if isinstance(values, dict) and section in config:
            config[section] |= values
        else:
            config[section] = values
    path.write_text(json.dumps(config))


def drop(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


def rename(name: str, other: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({other: tensors.pop(name)})


def reshape(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: torch.cat([tensors[name], tensors[name]])})


@pytest.mark.parametrize("name", SAMPLE)
def test_each_tensor_is_missed_by_name(dense_folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=rf"1 tensor missing: {name}$"):
        load(changed(dense_folder, tmp_path / "a", drop(name)))
    with pytest.raises(ModelError, match=rf"1 tensor missing: {name}; 1 tensor without a place.+: {name}_2$"):
        load(changed(dense_folder, tmp_path / "b", rename(name, f"{name}_2")))
    with pytest.raises(ModelError, match=rf"1 tensor unlike the model's: {name} is \(.+asks for \("):
        load(changed(dense_folder, tmp_path / "c", reshape(name)))


def test_any_tensor_at_all(dense_folder: Path, tmp_path: Path) -> None:
    names = sorted(load_file(dense_folder / "model.safetensors"))
    rng = random.Random(0)
    for i, name in enumerate(rng.sample(names, 20)):
        change = rng.choice([drop(name), rename(name, f"model.{name}"), reshape(name)])
        with pytest.raises(ModelError, match=name):
            load(changed(dense_folder, tmp_path / str(i), change))


@pytest.mark.parametrize("part", ["gate_up_proj", "down_proj"])
def test_experts_are_missed_by_name(moe_folder: Path, tmp_path: Path, part: str) -> None:
    name = f"{TEXT}mlp.experts.{part}"
    for i, change in enumerate([drop(name), rename(name, f"{name}_2"), reshape(name)]):
        with pytest.raises(ModelError, match=name):
            load(changed(moe_folder, tmp_path / str(i), change))


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            "text_config",
            {"num_hidden_layers": 5},
            r"11 tensors missing: model\.language_model\.layers\.4\.\S+, .+ and 8",
        ),
        ("text_config", {"num_hidden_layers": 3}, r"11 tensors without a place in the model: model.language_model.lay"),
        ("vision_config", {"depth": 5}, r"12 tensors missing: model\.visual\.blocks\.4\."),
        ("vision_config", {"depth": 3, "deepstack_visual_indexes": [0, 1, 2]}, r"12 tensors without a place"),
        ("vision_config", {"deepstack_visual_indexes": [0, 1, 2, 3]}, r"6 tensors missing: .+deepstack_merger_list\.3"),
        (
            "vision_config",
            {"deepstack_visual_indexes": [1, 2]},
            r"6 tensors without a place: |6 tensors without a place",
        ),
        ("vision_config", {"deepstack_visual_indexes": [1, 2, 4]}, "names layer 4, but there are 4"),
        ("vision_config", {"deepstack_visual_indexes": [1, 1, 2]}, "each once"),
        ("vision_config", {"deepstack_visual_indexes": [3, 2, 1]}, "each once and in order"),
        ("text_config", {"num_hidden_layers": 2}, "has 3 layers' features, the text model 2 layers"),
        ("text_config", {ROPE: {"mrope_interleaved": False}}, "mrope_interleaved is False, want true"),
        ("text_config", {"intermediate_size": 128}, r"12 tensors unlike the model's: .+mlp.down_proj.weight is"),
        ("text_config", {"num_key_value_heads": 4}, r"8 tensors unlike the model's"),
        ("text_config", {"vocab_size": 300}, r"embed_tokens.weight is \(272, 64\), the config asks for \(300, 64\)"),
        ("text_config", {"attention_bias": True}, r"16 tensors missing"),
        ("text_config", {"hidden_size": 10**12}, r"hidden_size is 1000000000000, but no tensor"),
        ("text_config", {"head_dim": 10**12}, r"head_dim is 1000000000000, but no tensor"),
        ("text_config", {"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000, but the weights hold at most"),
        ("text_config", {"num_attention_heads": 10**18}, r"num_attention_heads is"),
        ("vision_config", {"depth": 10**9}, r"depth is"),
        ("vision_config", {"num_position_embeddings": 10**12}, r"num_position_embeddings is"),
        ("text_config", {"hidden_size": -64}, r"hidden_size is -64, want a whole number"),
        ("text_config", {"hidden_size": "64"}, r"hidden_size is '64', want a whole number"),
        ("text_config", {"hidden_size": 64.5}, r"hidden_size is 64.5"),
        ("text_config", {"num_attention_heads": 0}, r"config"),
        ("text_config", {"hidden_size": [64]}, r"config"),
        ("text_config", {ROPE: 3}, r"want an object"),
        ("text_config", {ROPE: {"rope_type": "no"}}, r"config"),
        ("text_config", {"layer_types": [["full_attention"]]}, r"layer_types is no list"),
        ("text_config", {"layer_types": 7}, r"layer_types is no list"),
        ("text_config", {"rms_norm_eps": None}, r"has no text_config.rms_norm_eps"),
        ("text_config", {"rms_norm_eps": 3}, r"rms_norm_eps is 3, want a small number"),
        ("text_config", {"rope_parameters": None, "rope_scaling": None}, r"rope_scaling is missing"),
        ("text_config", {"use_cache": None}, r"use_cache"),
        ("text_config", {"pad_token_id": True}, r"pad_token_id is True, want a token's number"),
        ("text_config", {"head_dim": 10**29}, r"head_dim is"),
        ("vision_config", {"num_heads": None}, r"has no vision_config.num_heads"),
        ("vision_config", {"num_heads": 3}, r"hidden_size is 32, which 3 heads cannot share"),
        ("vision_config", {"num_heads": 16}, r"which 16 heads cannot share"),
        ("vision_config", {"deepstack_visual_indexes": None}, r"deepstack_visual_indexes"),
        ("text_config", {"hidden_act": "rubbish"}, r"rubbish"),
        ("text_config", {"rms_norm_eps": {}}, r"config"),
        ("vision_config", {"patch_size": [16]}, r"patch_size is \[16\]"),
        ("vision_config", {"hidden_act": None}, r"config"),
        ("text_config", [], r"text_config is a list, want an object"),
        ("vision_config", "none", r"vision_config is a str"),
        ("model_type", ["qwen3_vl"], r"model type \['qwen3_vl'\] is not supported"),
        ("quantization_config", {"quant_method": "rubbish"}, r"rubbish"),
        ("quantization_config", 5, r"mine: "),
        ("tie_word_embeddings", "perhaps", r"mine: "),
        ("video_token_id", "x", r"video"),
    ],
)
def test_a_config_that_does_not_fit(
    dense_folder: Path, tmp_path: Path, section: str, values: Any, message: str
) -> None:
    folder = shutil.copytree(dense_folder, tmp_path / "mine")
    configure(folder, **{section: values})
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("key", ["num_experts", "num_experts_per_tok"])
@pytest.mark.parametrize("value", [0, 5, 10**12, "4", [4], None])
def test_experts_that_are_not_there(moe_folder: Path, tmp_path: Path, key: str, value: Any) -> None:
    folder = shutil.copytree(moe_folder, tmp_path / "mine")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    present = key if key in config["text_config"] else "num_local_experts"
    config["text_config"][present] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"experts"):
        load(folder)


def test_a_head_of_its_own_is_not_tied_away(dense_folder: Path, tmp_path: Path) -> None:
    embed = "model.language_model.embed_tokens.weight"
    equal = changed(dense_folder, tmp_path / "a", lambda t: t.update({"lm_head.weight": t[embed].clone()}))
    assert (load(equal).score(CLIP, ONE).values == load(dense_folder).score(CLIP, ONE).values).all()
    other = changed(dense_folder, tmp_path / "b", lambda t: t.update({"lm_head.weight": t[embed] + 1e-3}))
    with pytest.raises(ModelError, match=r"lm_head.weight differs from .+embed_tokens.weight, but config.json ties"):
        load(other)


def test_untied_embeddings_need_their_head(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "untied", tie_word_embeddings=False)
    load(folder)
    with pytest.raises(ModelError, match=r"1 tensor missing: lm_head.weight$"):
        load(changed(folder, tmp_path / "a", drop("lm_head.weight")))


def test_what_other_savers_add_is_no_fault(dense_folder: Path, tmp_path: Path) -> None:
    """Computed buffers that old versions saved, and a model saved without its head, whose names have no prefix."""
    plain = load(dense_folder).score(CLIP, ONE).values
    inv = {
        "model.language_model.rotary_emb.inv_freq": torch.ones(8),
        "model.visual.rotary_pos_emb.inv_freq": torch.ones(4),
    }
    with_buffers = load(changed(dense_folder, tmp_path / "a", lambda t: t.update(inv)))
    assert (with_buffers.score(CLIP, ONE).values == plain).all()

    def shorten(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    assert (load(changed(dense_folder, tmp_path / "b", shorten)).score(CLIP, ONE).values == plain).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_no_numbers(dense_folder: Path, tmp_path: Path, value: float, dtype: str) -> None:
    name = f"{TEXT}mlp.up_proj.weight"

    def spoil(tensors: Tensors) -> None:
        tensors[name][3, 4] = value

    folder = changed(dense_folder, tmp_path / "a", spoil)
    with pytest.raises(ModelError, match=rf"1 tensor with values that are NaN or infinite: {name}$"):
        load(folder, dtype=dtype)


def test_weights_that_only_this_dtype_cannot_hold(dense_folder: Path, tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors[f"{TEXT}mlp.up_proj.weight"][3, 4] = 1e6

    folder = changed(dense_folder, tmp_path / "a", spoil)
    load(folder, dtype="bfloat16")
    with pytest.raises(ModelError, match="NaN or infinite"):
        load(folder, dtype="float16")


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("protocol", ["dense", "describing"])
def test_answers_that_are_no_numbers(dense_folder: Path, one_pass: bool, protocol: str) -> None:
    model = load(dense_folder)
    with torch.no_grad():  # finite weights whose product is not
        model.model.text.norm.weight.fill_(1e30)
        model.model.text.embed_tokens.weight[5:9].fill_(1e30)
    chosen = load_protocol("dense", **({"description": "once"} if protocol == "describing" else {}))
    with pytest.raises(ModelError, match="answers are NaN or infinite in float32"):
        model.score(CLIP, ONE, protocol=chosen, one_pass=one_pass)


def test_the_fingerprint_tells_weights_apart(dense_folder: Path, tmp_path: Path) -> None:
    def nudge(tensors: Tensors) -> None:
        tensors[f"{TEXT}mlp.up_proj.weight"][0, 0] += 1e-3

    shutil.copytree(dense_folder, tmp_path / "same")
    prints = [
        load(folder).model.provenance["fingerprint"]
        for folder in (dense_folder, tmp_path / "same", changed(dense_folder, tmp_path / "other", nudge))
    ]
    assert prints[0] == prints[1] != prints[2]
    assert len(prints[0]) == 16


def test_large_files_are_sampled(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(50 * 2**20)
    files = Files(str(tmp_path))
    before = files.fingerprint([path])
    with path.open("r+b") as file:
        file.seek(50 * 2**20 - 1)
        file.write(b"1")
    assert files.fingerprint([path]) != before


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_weights_that_were_saved_quantized(tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("bitsandbytes")
    base = make_checkpoint(tmp_path / "base", intermediate_size=192)  # whole blocks of 64
    model, folder = load(base, quantization=kind), tmp_path / kind
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model.model.model.save_pretrained(folder)  # before it scores: bitsandbytes packs weights anew for a CPU
    np.testing.assert_allclose(load(folder).score(CLIP, ONE).values, model.score(CLIP, ONE).values, atol=1e-4)
    for i, name in enumerate(["model.language_model.norm.weight", f"{TEXT}mlp.up_proj.weight"]):
        with pytest.raises(ModelError, match=rf"1 tensor missing: {name}$"):
            load(changed(folder, tmp_path / str(i), drop(name)))


def test_answers_of_quantized_weights_that_are_no_numbers(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = make_checkpoint(tmp_path / "base", intermediate_size=192)

    def spoil(tensors: Tensors) -> None:
        tensors[f"{TEXT}mlp.up_proj.weight"][3, 4] = float("nan")

    with pytest.raises(ModelError, match="NaN or infinite"):
        load(changed(base, tmp_path / "a", spoil), quantization="nf4").score(CLIP, ONE)


def test_a_tokenizer_of_another_model(dense_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dense_folder, tmp_path / "a")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["added_tokens"].append({**data["added_tokens"][-1], "id": 400, "content": "<|more|>"})
    path.write_text(json.dumps(data))
    with pytest.raises(ModelError, match=r"the tokenizer has a token .+ vocab_size is 272"):
        load(folder)


def test_files_that_would_be_loaded_instead(dense_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dense_folder, tmp_path / "a")
    shutil.copy(folder / "model.safetensors", folder / "shard-00001-model-00001-of-00001.safetensors")
    with pytest.raises(ModelError, match=r"beside config\.json"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_codes_are_not_taken_for_weights(dense_folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    name = f"{TEXT}mlp.up_proj.weight"
    folder = changed(dense_folder, tmp_path / "a", lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(ModelError, match=rf"1 tensor unlike the model's: {name} is [A-Z0-9]+, want floating point"):
        load(folder)


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Lowercase"},
        {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"},
        {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
        {"type": "NFKC"},
    ],
)
def test_a_tokenizer_that_changes_words_is_refused(dense_folder: Path, tmp_path: Path, normalizer: Any) -> None:
    folder = shutil.copytree(dense_folder, tmp_path / "a")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    assert load(folder)  # which has NFC or none
    path.write_text(json.dumps(data | {"normalizer": normalizer}))
    with pytest.raises(ModelError, match=r"changes texts by .+ want NFC or nothing"):
        load(folder)
