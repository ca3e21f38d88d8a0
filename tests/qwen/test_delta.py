"""The linear layers' plan and mixer, alone: against the library's layer over each whole lineage of tokens."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from clips import rolled_clip
from common import peak_rss_over, random_model
from hybrids import CLASSES, hybrid_config, make_hybrid, needs_hybrids
from topreward.config import load_protocol
from topreward.errors import ModelError
from topreward.estimators.topreward.call import Call
from topreward.estimators.topreward.estimator import TOPReward
from topreward.qwen import loading
from topreward.qwen.delta import (
    DeltaPlan,
    Stretch,
    branch_plan,
    branch_points,
    held_bytes,
    longest_stretch,
    mix,
    mixing,
    rule_name,
    trunk_plan,
)
from topreward.qwen.layout import Branch
from topreward.qwen.loading import ALIASES, load_checkpoint
from topreward.qwen.memory import LinearLayers, fitting_points

ONE = "pick up the cup"
CLIP = rolled_clip(count=40, height=64, width=96)


@st.composite
def rows_of_branches(draw: st.DrawFn, most_rows: int = 3) -> list[Branch]:
    """Branches as `lay_out` and `pack` make them: trunk lengths that never fall, spans side by side."""
    out = []
    tails = draw(st.integers(1, 3))
    for row in range(draw(st.integers(1, most_rows))):
        length, start = 0, 0
        for _ in range(draw(st.integers(1, 4))):
            length += draw(st.sampled_from([0, 1, 2, 5, 70]))
            stem = start + (draw(st.integers(0, 70)) if tails > 1 else draw(st.sampled_from([0, 3, 66])))
            stops = tuple(np.cumsum([draw(st.integers(1, 6)) for _ in range(tails)]) + stem)
            out.append(Branch(length, start, stem, tuple(map(int, stops)), row))
            start = out[-1].stop
    return out


def widths(branches: list[Branch]) -> tuple[int, int]:
    return max(b.trunk_length for b in branches), max(b.stop for b in branches)


@settings(deadline=None)
@given(rows_of_branches())
def test_every_token_is_in_one_stretch_and_begins_where_another_ended(branches: list[Branch]) -> None:
    trunk_width, branch_width = widths(branches)
    rows = max(b.row for b in branches) + 1
    trunk = trunk_plan(branches, width=trunk_width)
    branch = branch_plan(branches, {}, width=branch_width)
    assert set(trunk.points) == set(branch_points(branches)) >= set(branch.carried)
    assert not trunk.carried
    for plan in (trunk, branch):
        places = np.concatenate([np.arange(s.first, s.last) for s in plan.stretches] or [np.arange(0)])
        assert len(np.unique(places)) == len(places)
        assert places.max(initial=-1) < plan.tokens
        done = set(plan.carried)
        calls = plan.calls()
        for call in calls:
            assert all(s.begins is None or s.begins in done for s in call.stretches)
            done |= {s.ends for s in call.stretches if s.ends is not None}
        assert sorted(s.first for c in calls for s in c.stretches) == sorted(s.first for s in plan.stretches)
    assert sum(map(len, branch.stretches)) == sum(map(len, branches))
    last = {row: max(b.trunk_length for b in branches if b.row == row) for row in range(rows)}
    assert sum(map(len, trunk.stretches)) == sum(last.values())
    assert longest_stretch(branches) == max(map(len, trunk.stretches), default=0)


@pytest.fixture(scope="module")
def layer(hybrid_folder: Path) -> Any:
    model = load_checkpoint(hybrid_folder, device="cpu").model
    return model.model.language_model.layers[1].linear_attn


@needs_hybrids
@settings(deadline=None, max_examples=25)
@given(rows_of_branches(), st.integers(0, 2**31))
def test_the_mixer_is_the_librarys_layer_over_each_lineage(layer: Any, branches: list[Branch], seed: int) -> None:
    trunk_width, branch_width = widths(branches)
    rows = max(b.row for b in branches) + 1
    random = torch.Generator().manual_seed(seed)
    trunk_tokens = torch.randn(rows, trunk_width, 64, generator=random)
    branch_tokens = torch.randn(rows, branch_width, 64, generator=random)
    plan = trunk_plan(branches, width=trunk_width)
    with torch.inference_mode():
        if trunk_width:
            on_trunk = mix(layer, plan, trunk_tokens)
            assert on_trunk.isfinite().all(), "padding is not a number"
        ours = mix(layer, branch_plan(branches, plan.states, width=branch_width), branch_tokens)
        assert ours.isfinite().all()
        for b in branches:
            tail = b.stem_stop
            for stop in b.tail_stops:
                own = [branch_tokens[b.row, b.start : b.stem_stop], branch_tokens[b.row, tail:stop]]
                whole = torch.cat([trunk_tokens[b.row, : b.trunk_length], *own])[None]
                theirs = layer(hidden_states=whole)[0]
                torch.testing.assert_close(
                    ours[b.row, tail:stop], theirs[len(whole[0]) - (stop - tail) :], atol=2e-5, rtol=2e-5
                )
                if b.trunk_length:
                    torch.testing.assert_close(
                        on_trunk[b.row, : b.trunk_length], theirs[: b.trunk_length], atol=2e-5, rtol=2e-5
                    )
                tail = stop


@needs_hybrids
def test_padding_leaves_a_state_as_it_is(layer: Any) -> None:
    tokens = torch.randn(1, 100, 64, generator=torch.Generator().manual_seed(0))
    alone = DeltaPlan((Stretch(0, 7, None, ("trunk", 0, 7)),), 100, keeps=True)
    beside = DeltaPlan(
        (Stretch(0, 7, None, ("trunk", 0, 7)), Stretch(40, 100, None, ("trunk", 0, 100))), 100, keeps=True
    )
    assert [c.valid.shape for c in beside.calls()] == [(2, 60)]
    with torch.inference_mode():
        mix(layer, alone, tokens)
        mix(layer, beside, tokens)
    a, b = (plan.states[layer.layer_idx]["trunk", 0, 7] for plan in (alone, beside))
    assert a.memory.dtype == b.memory.dtype == torch.float32
    torch.testing.assert_close(a.memory, b.memory, atol=1e-6, rtol=1e-6)
    assert torch.equal(a.inputs, b.inputs)


@needs_hybrids
def test_the_layers_are_themselves_again(layer: Any) -> None:
    decoder = SimpleNamespace(linear_attn=layer)
    with mixing([decoder, SimpleNamespace(self_attn=None)], DeltaPlan((), 0)):
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)
    with pytest.raises(ZeroDivisionError), mixing([decoder], DeltaPlan((), 0)):
        1 / 0  # noqa: B018
    assert "forward" not in vars(layer)


@needs_hybrids
def test_offloaded_weights_are_brought_in(hybrid_folder: Path) -> None:
    here = TOPReward.from_pretrained(hybrid_folder, device="cpu")
    want = here.score(CLIP, ONE).values
    accelerate.cpu_offload(here.model.text, execution_device="cpu")  # 5.2 cannot do it to its vision tower
    assert here.model.text.layers[0].linear_attn.A_log.device.type == "meta"
    np.testing.assert_array_equal(here.score(CLIP, ONE).values, want)
    assert here.model.text.layers[0].linear_attn.A_log.device.type == "meta"


@needs_hybrids
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_states_take_what_is_estimated(hybrid_folder: Path, dtype: str) -> None:
    estimator = TOPReward.from_pretrained(hybrid_folder, device="cpu", dtype=dtype)
    call = Call(estimator.model, CLIP, [ONE], load_protocol("dense", num_prefixes=0))
    with torch.inference_mode():
        blocks = call.layout.trunk_blocks
        patches = torch.randn(blocks * 4 * call.cells, 1536, generator=torch.Generator().manual_seed(0))
        trunk = estimator.model.prefill(call.layout, estimator.model.see(patches, call.grid))
    points = branch_points(call.layout.branches)
    assert len(trunk.layers) == 1, "keys are kept by full attention alone"
    assert all(list(states) == points for states in trunk.states.values())
    expected = len(points) * LinearLayers.of(estimator.model.model).state_bytes
    assert abs(held_bytes(trunk.states) / expected - 1) < 0.1


@needs_hybrids
def test_the_estimate_covers_the_measured_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 128, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 64, "linear_value_head_dim": 64}  # fmt: skip
    vision = {"depth": 3, "hidden_size": 128, "intermediate_size": 512, "num_heads": 4}
    estimator = TOPReward(random_model(text, vision))
    clip = rolled_clip(count=40, height=256, width=256, fps=2.0)
    how = load_protocol("dense", num_prefixes=0)
    asked: list[int] = []

    def remember(needed: Any, points: int, limit: int) -> int:
        asked.append(needed(points))
        return points

    monkeypatch.setattr("topreward.estimators.topreward.one_pass.fitting_points", remember)
    estimator.score(clip, ONE, protocol=how)
    peak = peak_rss_over(lambda: estimator.score(clip, ONE, protocol=how))
    if peak is None:
        pytest.skip("this system does not tell the peak of the resident set")
    assert peak > 40e6, "the call is too small to say anything"
    assert peak * 0.9 < asked[-1] < peak * 4


@pytest.mark.parametrize(
    ("layers", "heads", "mebibytes"), [(24, 32, 49), (48, 48, 147), (30, 32, 61)], ids=["9B", "27B", "35B-A3B"]
)
def test_the_published_sizes(layers: int, heads: int, mebibytes: int) -> None:
    text = SimpleNamespace(
        layer_types=["linear_attention"] * layers + ["full_attention"] * (layers // 3),
        linear_num_value_heads=heads,
        linear_num_key_heads=16,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        linear_conv_kernel_dim=4,
    )
    model = SimpleNamespace(config=SimpleNamespace(text_config=text), dtype=torch.bfloat16)
    assert round(LinearLayers.of(model).state_bytes / 2**20) == mebibytes


def test_as_many_points_as_fit() -> None:
    def needed(points: int) -> int:
        return 100 + 10 * points if points == 20 else 120 + 10 * (points + 1)

    assert fitting_points(needed, 20, 400) == 20
    assert fitting_points(needed, 20, 300) == 14
    assert needed(14) <= 0.9 * 300 < needed(15)
    assert fitting_points(needed, 20, 10) == 1
    assert fitting_points(needed, 0, 10) == 0


# -- loading -------------------------------------------------------------------------------------------


@needs_hybrids
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_weights(tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("bitsandbytes")
    folder = make_hybrid(tmp_path, intermediate_size=192, linear_value_head_dim=16)  # whole blocks of 64
    full = TOPReward.from_pretrained(folder, device="cpu")
    small = TOPReward.from_pretrained(folder, device="cpu", quantization=kind, dtype="float32")
    mixer = small.model.text.layers[0].linear_attn
    assert type(mixer.in_proj_qkv).__module__.startswith("bitsandbytes")
    assert type(mixer.in_proj_a) is type(mixer.in_proj_b) is torch.nn.Linear
    fast, slow = small.score(CLIP, ONE), small.score(CLIP, ONE, one_pass=False)
    assert np.abs(fast.values - full.score(CLIP, ONE).values).max() > 1e-3
    # bitsandbytes rounds activations too, and otherwise for other numbers of rows: on Qwen3-VL it is as much.
    np.testing.assert_allclose(fast.values, slow.values, atol=0.1 if kind == "nf4" else 1.0, rtol=0)


@needs_hybrids
def test_adapters_are_merged_into_linear_layers_too(hybrid_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = load_checkpoint(hybrid_folder, device="cpu").model
    torch.manual_seed(0)
    names = ["in_proj_qkv", "in_proj_z", "out_proj", "q_proj", "down_proj"]
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=names, init_lora_weights=False))
    wrapped.save_pretrained(tmp_path)
    adapted = TOPReward.from_pretrained(hybrid_folder, device="cpu", adapter=str(tmp_path))
    fast, slow = adapted.score(CLIP, ONE), adapted.score(CLIP, ONE, one_pass=False)
    assert (
        np.abs(fast.values - TOPReward.from_pretrained(hybrid_folder, device="cpu").score(CLIP, ONE).values).max() > 0.1
    )
    np.testing.assert_allclose(fast.values, slow.values, atol=1e-4, rtol=0)


@needs_hybrids
def test_heads_for_several_tokens_are_left_out(hybrid_folder: Path, tmp_path: Path) -> None:
    """Published checkpoints carry weights for guessing tokens ahead, which the library's class does not have."""
    folder = tmp_path / "it"
    shutil.copytree(hybrid_folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights["mtp.layers.0.mlp.up_proj.weight"] = torch.zeros(4, 4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    want = TOPReward.from_pretrained(hybrid_folder, device="cpu").score(CLIP, ONE).values
    np.testing.assert_array_equal(TOPReward.from_pretrained(folder, device="cpu").score(CLIP, ONE).values, want)


def config_only(folder: Path, name: str = "small", template: str | None = None) -> Path:
    """A folder with a config.json of this family and no weights: what is refused is refused before they are read."""
    folder = folder / name
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3_5", "text_config": {}, "vision_config": {}}')
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def test_versions_without_the_model_name_the_one_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hasattr(transformers, CLASSES["hybrid"]):
        monkeypatch.setitem(loading.MODEL_CLASSES, "qwen3_5", "NotYetThere")
    with pytest.raises(ModelError, match=r"qwen3_5 needs transformers 5.2 or newer, this is \d") as caught:
        load_checkpoint(config_only(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


ASSISTANT = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
TURNS = "{{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' }}"
LARGE = (
    "{%- if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- else %}{{- '<think>\\n' }}{%- endif %}"
)
SMALL = (
    "{%- if enable_thinking is true %}{{- '<think>\\n' }}{%- else %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
)
ALWAYS = "{{- '<think>\\n' }}"


@needs_hybrids
@pytest.mark.parametrize(
    ("template", "closes"), [(LARGE, True), (SMALL, True), ("", False), (None, True)], ids=["4B+", "2B", "no", "none"]
)
def test_what_the_template_opens(hybrid_folder: Path, tmp_path: Path, template: str | None, closes: bool) -> None:
    folder = tmp_path / "it"
    shutil.copytree(hybrid_folder, folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(TURNS + ASSISTANT + template + "{%- endif %}")
    assert load_checkpoint(folder, device="cpu").closes_thinking is closes


@needs_hybrids
@pytest.mark.parametrize(("template", "name"), [(ALWAYS, "any"), ("", "some-Thinking")])
def test_a_thought_that_cannot_be_empty_is_refused(tmp_path: Path, template: str, name: str) -> None:
    folder = config_only(tmp_path, name, TURNS + ASSISTANT + template + "{%- endif %}")
    with pytest.raises(ModelError, match="next token is a thought, not an answer"):
        load_checkpoint(folder, device="cpu")


def test_aliases_are_hub_ids() -> None:
    for alias, hub_id in ALIASES.items():
        if alias.startswith(("qwen3.5", "qwen3.6")):
            assert hub_id.lower() == f"qwen/{alias}"


@needs_hybrids
def test_other_mixers_are_still_refused(tmp_path: Path) -> None:
    folder = config_only(tmp_path)
    (folder / "config.json").write_text(
        '{"model_type": "qwen3_5", "text_config": {"layer_types": ["linear_attention", "mamba"]}, "vision_config": {}}'
    )
    with pytest.raises(ModelError, match="linear_attention, mamba"):
        load_checkpoint(folder, device="cpu")


def test_the_rule_on_a_cpu_is_torchs() -> None:
    assert rule_name(torch.device("cpu")) == "torch"


@needs_hybrids
def test_the_test_models_remember_long_and_short() -> None:
    assert hybrid_config().text_config.layer_types.count("linear_attention") == 3
