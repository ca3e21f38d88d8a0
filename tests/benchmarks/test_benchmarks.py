"""The parts of the benchmarks: what is kept, what is refused, and that every way measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import device
import exactness
import flat_memory
import flops
import gpu
import jobs
import measuring
import needs
import one_pass
import patch_embed
import rates
import tables
from architectures import make
from checkpoints import make_checkpoint
from clips import rolled_clip
from common import first, interleaved, random_model
from hybrids import needs_hybrids
from places import ROOT
from products import Products
from record import Record
from topreward.config import load_protocol
from topreward.estimators.topreward import TOPReward
from topreward.qwen.model import QwenVL
from ways import Workload

OF = {"architecture": "small", "dtype": "float32", "device": "cpu", "quick": True}
SHORT = load_protocol("paper", num_prefixes=4)


@pytest.fixture
def model(tiny: TOPReward) -> QwenVL:
    return tiny.model


def entry(value: int) -> dict[str, Any]:
    return {"value": value, "made": {"started": f"run {value}"}}


# -- what is kept --------------------------------------------------------------------------------------


def test_files_of_several_runs_become_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    record = Record(OF, one)
    record.keep("paper", entry(1))
    record.keep("label", entry(2))
    Record(OF, two).keep("10min", entry(3))
    Record(OF, one, merge=[two]).keep("label", entry(4))
    report = json.loads(one.read_text())
    assert {name: e["value"] for name, e in report["workloads"].items()} == {"10min": 3, "paper": 1, "label": 4}
    assert [e["value"] for e in report["earlier"]] == [2]


def test_a_failure_takes_no_figures_away(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    Record(OF, path).keep("paper", entry(1))
    record = Record(OF, path)
    record.keep("paper", entry(2), finished=False)
    record.fail("paper", "out of memory", {})
    report = json.loads(path.read_text())
    assert report["workloads"]["paper"]["value"] == 1
    assert report["unfinished"]["paper"]["value"] == 2
    assert report["errors"][0]["error"] == "out of memory"


def test_figures_of_another_architecture_are_refused(tmp_path: Path) -> None:
    Record(OF, tmp_path / "gpu.json").keep("paper", entry(1))
    with pytest.raises(ValueError, match="these are of"):
        Record(OF | {"architecture": "qwen3-vl-8b"}, tmp_path / "gpu.json")


def test_joining_files_by_hand(tmp_path: Path) -> None:
    for i in (1, 2):
        Record(OF, tmp_path / f"{i}.json").keep(f"w{i}", entry(i))
    command = [sys.executable, "benchmarks/record.py", tmp_path / "1.json", tmp_path / "2.json"]
    subprocess.run([*command, "--into", tmp_path / "all.json"], cwd=ROOT, check=True, capture_output=True)
    assert list(json.loads((tmp_path / "all.json").read_text())["workloads"]) == ["w1", "w2"]


# -- the script ----------------------------------------------------------------------------------------


def test_a_workload_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preferred: list[str] = []

    @contextmanager
    def prefer(kernels: list[Any], *, set_priority: bool) -> Iterator[None]:
        assert set_priority
        preferred.append(kernels[0].name)
        yield
        preferred.pop()

    def measure(model: QwenVL, name: str, run: Any, keep: Any) -> dict[str, Any]:
        if name == "paper":
            keep({"half": 1})
            raise RuntimeError("out of memory")
        return {"failed": {"append": "why"}, "whole": 2, "sdpa": preferred[-1]}

    monkeypatch.setattr(measuring, "measure", measure)
    monkeypatch.setattr(device, "sdpa_kernel", prefer)
    path = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--arch", "small", "--quick", "--workload", "paper", "--workload", "label"]
    more = ["--sdpa", "cudnn", "--commit", "abc", "--linear-patch-embed", "--json", str(path)]
    assert gpu.main([*arguments, *more]) == 1
    assert "failed: paper, append of label" in capsys.readouterr().err
    report = json.loads(path.read_text())
    assert report["of"] == OF
    assert report["unfinished"]["paper"]["half"] == 1
    assert "out of memory" in report["errors"][0]["error"]
    label = report["workloads"]["label"]
    assert (label["whole"], label["sdpa"]) == (2, "CUDNN_ATTENTION")
    made = label["made"]
    assert made["machine"]["commit"] == "abc"
    assert made["matrix_rate"] > 0
    assert made["arguments"][:2] == ["--device", "cpu"]
    assert made["patch_embed"]["used"] == "product"
    assert {"convolution", "product"} < set(made["patch_embed"])


def test_what_is_missing_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(needs.ALWAYS, "no_such_module", "nothing")
    monkeypatch.setitem(needs.LABEL, "no_such_reader", "reader")
    assert [line for line in needs.missing(["paper"], []) if "nothing" in line]
    assert len(needs.missing(["paper"], [])) == 1
    assert needs.missing(["label"], [])[1].endswith("for label")
    with pytest.raises(SystemExit, match=r"nothing .*, for every workload"):
        gpu.main(["--workload", "paper"])


def test_names_are_those_that_there_are() -> None:
    assert tuple(jobs.JOBS) == needs.CLIPS


@pytest.mark.parametrize("wrong", [["--min-repeats", "0"], ["--merge", "no/such.json"], ["--workload", "none"]])
def test_wrong_options_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.options(wrong)
    assert wrong[0] in capsys.readouterr().err


def test_decoding_processes_need_no_torch() -> None:
    code = "import sys; sys.path[:0] = ['benchmarks']; import gpu, decoding; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# -- time and memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "least", "times"), [(0.0, 2, 2), (float("inf"), 2, 5), (3.5, 1, 3)])
def test_repeats_within_the_budget(budget: float, least: int, times: int) -> None:
    calls: list[int] = []
    seconds = interleaved({"way": lambda: calls.append(1)}, 5, budget=budget, least=least, warm=1.0)
    assert len(seconds["way"]) == len(calls) == times


def test_the_first_call_gives_value_time_and_memory() -> None:
    found = first(lambda: np.ones(4_000_000).sum(), "cpu")
    assert found.value == 4_000_000
    assert found.seconds > 0
    assert found.peak_bytes is None or found.peak_bytes > 20_000_000


def test_nvidia_smi_answers_field_by_field() -> None:
    said = device.parsed("1980 MHz, 1980 MHz, 3201 MHz, 120.50 W, 700.00 W, 41, 580.159.03\n")
    assert (said["clocks.sm"], said["power.draw"], said["driver_version"]) == ("1980 MHz", "120.50 W", "580.159.03")
    assert device.parsed("No devices were found\n") == {}
    assert device.clocks() == {} or torch.cuda.is_available()


def test_fp32_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    device.use("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


# -- the ways ------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_arithmetic_of_each_way() -> None:
    model = make("small", device="cpu", dtype=torch.float32, kernel="dense")
    job = jobs.Job(30, load_protocol("paper", num_prefixes=3))
    work = Workload(model, job.clip(), jobs.TASKS[:1], job.protocol)
    ways, need = measuring._ways(model, work, job)
    for name in ("floor", "ours", "append", "alone", "recompute"):
        with Products() as products:
            ways[name]()
        assert products.operations == need[name].total, name
    assert need["score"] == need["ours"]
    np.testing.assert_allclose(ways["floor"]()[0, 0], ways["ours"]()[-1, 0], atol=1e-4)
    assert flops.of_layouts(model.model.config, [work.layout] * 2).total == 2 * need["ours"].total


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_slow_twin_read_by_the_head_that_reads_ours(dtype: torch.dtype) -> None:
    model = make("small", device="cpu", dtype=dtype)
    clip = jobs.Job(30, SHORT, 64, 96).clip()
    twin = exactness._twin(Workload(model, clip, jobs.TASKS[:1], SHORT))
    rounding = np.abs(twin.values - twin.read_as_ours).max()
    assert rounding < 1e-5 if dtype == torch.float32 else 0 < rounding < 0.1
    model.model.lm_head(torch.zeros(256, dtype=dtype))  # what listened to it would have no last row of that
    found = exactness.against_kernels(model, [clip], jobs.TASKS[:1], SHORT)
    bound = 1e-4 if dtype == torch.float32 else 0.3
    assert max(found["same_head"]["ours_to_slow_twin"]) < bound
    assert len(found["ours_to_slow_twin"]) == len(found["same_head"]["slow_twin_eager_to_sdpa"]) == 1


@torch.inference_mode()
def test_what_takes_long_runs_once(model: QwenVL) -> None:
    job = replace(jobs.SHORT, protocol=SHORT, once=("recompute",))
    kept: list[dict[str, Any]] = []
    result = measuring.time_ways(model, "short", job, run(), kept.append)
    assert len(result["seconds"]["recompute"]) == 1
    assert result["seconds"]["recompute"] != [result["first_seconds"]["recompute"]]
    assert len(result["seconds"]["ours"]) == 2
    assert set(result["share_of_matrix_rate"]) == set(result["median"]) == set(result["peak_bytes"])
    assert max(result["largest_difference"].values()) < 1e-3
    assert jobs.JOBS["10min"].once == ("recompute",)


@torch.inference_mode()
def test_a_way_that_fails_is_named(model: QwenVL, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(work: Workload) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Workload, "append", fail)
    result = measuring.time_ways(model, "short", replace(jobs.SHORT, protocol=SHORT), run(), lambda entry: None)
    assert "no such kernel" in result["failed"]["append"]
    assert "append" not in result["median"]
    assert result["median"]["recompute"] > 0


def run(**changes: Any) -> measuring.Run:
    labelling = rates.Labelling(episodes=2, workers=2, processes=False, repeats=2)
    usual = measuring.Run("cpu", 1e10, 2, 2, 1.0, True, labelling, lambda model: "convolution")
    return replace(usual, **changes)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_patch_embedding_as_a_product(dtype: torch.dtype) -> None:
    model = make("small", device="cpu", dtype=dtype)
    patches = torch.randn(64, 1536)
    before = model.visual.patch_embed(patches)
    measured = patch_embed.measure(model, 64)
    assert patch_embed.as_chosen(model, "never", measured) == "convolution"
    assert patch_embed.as_chosen(model, "auto", {"convolution_over_product": 2.0}) == "convolution"
    torch.testing.assert_close(model.visual.patch_embed(patches), before)
    assert "convolution" in measured_kinds(model)
    assert patch_embed.as_chosen(model, "auto", {"convolution_over_product": 200.0}) == "product"
    after = model.visual.patch_embed(patches)
    torch.testing.assert_close(after, before, atol=1e-5 if dtype == torch.float32 else 5e-2, rtol=1e-2)
    assert measured_kinds(model) == {"linear", "attention"}, "every way sees through the product"


def measured_kinds(model: QwenVL) -> set[str]:
    with Products() as products:
        Workload(model, rolled_clip(count=21, fps=2.0), ["open the drawer"], SHORT).recompute()
    return set(products.by_kind)


# -- Qwen3.5 -------------------------------------------------------------------------------------------


@needs_hybrids
@torch.inference_mode()
def test_a_random_hybrid_in_its_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass, "SIDE", 64)
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "head_dim": 64}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2}
    model = random_model(one_pass.HYBRID_TEXT | small, vision)
    assert model.hybrid
    found = one_pass.measure(model, "patches, all", load_protocol("dense", num_prefixes=0), 1, True, frames=6)
    assert set(found["median"]) == {"floor", "ours", "trunk", "decoder", "recompute"}
    assert max(found["largest_difference"].values()) < 1e-3
    assert found["states"]["points"] == 3
    assert 0.9 < found["states"]["held_over_estimated"] < 1.1
    assert found["decoder_over_trunk"] > 0


@needs_hybrids
@torch.inference_mode()
def test_a_linear_layer_with_the_rules_there_are(model: QwenVL) -> None:
    found = measuring.measure(model, "delta-rule", run(), lambda entry: None)
    assert found["rules"] == ["torch"]
    assert set(found["median"]) == {"library, whole trunk", "torch, trunk and branches"}
    assert found["points"] > 1


# -- from files to labels ------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("processes", [False, True])
def test_labelling(tiny: TOPReward, processes: bool) -> None:
    how = rates.Labelling(episodes=3, workers=2, processes=processes, repeats=2)
    job = jobs.Job(60, SHORT, 64, 96)
    found = rates.labelling_rate(tiny, job.clip(smooth=True), "pick up the cup", SHORT, how)
    assert set(found["share_of_model_only"]) == {"av1, gop 2", "h264, gop 250"}
    assert {len(seconds) for seconds in found["seconds"].values()} == {2}
    assert found["decoding_with"] == ("processes" if processes else "threads")


# -- quantized -----------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_as_loading_does_it(tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("bitsandbytes")
    quantization = pytest.importorskip("quantization")
    folder = make_checkpoint(tmp_path, intermediate_size=192)
    loaded = TOPReward.from_pretrained(folder, device="cpu", quantization=kind, dtype="float32").model
    turned = TOPReward.from_pretrained(folder, device="cpu", dtype="float32").model
    full = quantization.weight_bytes(turned)
    layers = quantization.quantize(turned, kind)
    theirs, ours = (
        {name: module for name, module in model.text.named_modules() if "bitsandbytes" in type(module).__module__}
        for model in (loaded, turned)
    )
    assert list(ours) == list(theirs)
    assert len(ours) == layers
    for name, their in theirs.items():
        our = ours[name]
        assert type(our) is type(their)
        assert torch.equal(our.weight.data.cpu(), their.weight.data.cpu()), name
        if kind == "int8":
            assert our.state.threshold == their.state.threshold == 6.0
            assert our.state.has_fp16_weights == their.state.has_fp16_weights
        else:
            assert our.compute_dtype == their.compute_dtype
            assert our.weight.quant_state.nested == their.weight.quant_state.nested is False
            assert our.weight.quant_type == their.weight.quant_type == "nf4"
    assert quantization.weight_bytes(turned) == quantization.weight_bytes(loaded) < full
    clip = rolled_clip(count=30)
    [a], [b] = (TOPReward(model).score(clip, ["pick up the cup"], protocol=SHORT) for model in (loaded, turned))
    np.testing.assert_array_equal(a.values, b.values)


# -- the tables ----------------------------------------------------------------------------------------


def test_a_table_waits_for_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.rewrite("<!-- table: gpu -->\nold\n<!-- end -->") == (
        "<!-- table: gpu -->\nNo figures yet.\n<!-- end -->"
    )


def test_transformers_is_one_that_the_settings_are_known_of() -> None:
    settings = transformers.BitsAndBytesConfig(load_in_8bit=True)
    assert settings.llm_int8_threshold == 6.0
    assert settings.bnb_4bit_use_double_quant is False


# -- memory --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_memory_of_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_memory, "WARM", 1)
    found = flat_memory.measure(2, tmp_path)
    assert (found["episodes"], found["prefixes"]) == (2, 15)
    assert 0 < found["peak_mib"]["warm"] <= found["peak_mib"]["all"] <= found["peak_mib"]["written"]
    rows = json.loads((tmp_path / "results.json").read_text())["estimators"]
    assert set(rows) == {"topreward", "log_odds", "debiased", "gvl", "time_index"}
