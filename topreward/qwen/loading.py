"""A checkpoint's name or folder → model and tokenizer, or one line that says why not.

In goes what a user types; out comes a `Checkpoint`: transformers' own model, the tokenizer as the plain
`tokenizers` object that its tokenizer.json describes (the wrapper classes differ between transformers
versions, the file does not), and what to write into provenance. Nothing is run from the hub
(`trust_remote_code` stays off) and weights are read from safetensors only. All of the weights are loaded, and nothing
else: whether they are whole is qwen/wholeness.py's, an adapter is qwen/adapters.py's.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.normalizers import NFC
from transformers import PretrainedConfig, PreTrainedModel

from topreward.errors import ModelError, nearest
from topreward.limits import hold
from topreward.qwen import adapters, pixels
from topreward.qwen.config_values import refuse_types, refuse_values, without_orders
from topreward.qwen.files import Files, local_folder, one_line, shown
from topreward.qwen.headers import Stored, read_headers
from topreward.qwen.quiet import quiet
from topreward.qwen.wholeness import (
    refuse_claims,
    refuse_non_finite,
    refuse_report,
    refuse_tensors,
    refuse_unlike,
    refuse_unlike_quantized,
)

# Shipped inside the package: a tiny checkpoint that reads the demo world (topreward/demo/README.md).
DEMO = "demo"
ALIASES = {
    DEMO: str(Path(__file__).parent.parent / "demo" / "checkpoint"),
    "qwen3-vl": "Qwen/Qwen3-VL-8B-Instruct",
    "qwen3-vl-2b": "Qwen/Qwen3-VL-2B-Instruct",
    "qwen3-vl-4b": "Qwen/Qwen3-VL-4B-Instruct",
    "qwen3-vl-8b": "Qwen/Qwen3-VL-8B-Instruct",
    "qwen3-vl-32b": "Qwen/Qwen3-VL-32B-Instruct",
    "qwen3-vl-30b-a3b": "Qwen/Qwen3-VL-30B-A3B-Instruct",
    "qwen3.5-0.8b": "Qwen/Qwen3.5-0.8B",
    "qwen3.5-2b": "Qwen/Qwen3.5-2B",
    "qwen3.5-4b": "Qwen/Qwen3.5-4B",
    "qwen3.5-9b": "Qwen/Qwen3.5-9B",
    "qwen3.5-27b": "Qwen/Qwen3.5-27B",
    "qwen3.5-35b-a3b": "Qwen/Qwen3.5-35B-A3B",
    "qwen3.5-122b-a10b": "Qwen/Qwen3.5-122B-A10B",
    "qwen3.5-397b-a17b": "Qwen/Qwen3.5-397B-A17B",
    "qwen3.6-27b": "Qwen/Qwen3.6-27B",
    "qwen3.6-35b-a3b": "Qwen/Qwen3.6-35B-A3B",
}
MODEL_CLASSES = {
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
}
WHAT_WORKS = (
    f"Qwen3-VL Instruct, Qwen3.5 and 3.6 checkpoints work: {', '.join(ALIASES)}, or a hub id or folder of that kind"
)

# Their text model has linear layers, whose states the one pass keeps (`topreward.qwen.delta`).
HYBRIDS = {"qwen3_5", "qwen3_5_moe"}
HYBRIDS_NEED = "5.2"
HYBRIDS_ARE_UNPROVEN = (
    "Qwen3.5 and 3.6: with the paper's prompt the only published VOCs are bad (9B -.15 to -.88, 35B-A3B .11 to .44; "
    "Qwen3-VL-8B .83 to .96 on the same four splits): believe no curve of this family without its controls"
)

PIXELS = {
    "patch_size": pixels.PATCH,
    "merge_size": pixels.MERGE,
    "temporal_patch_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}

BEFORE_5 = int(transformers.__version__.split(".")[0]) < 5

Quantization = Literal["none", "int8", "nf4"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded model, its tokenizer, and where both came from."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    provenance: dict[str, Any]
    closes_thinking: bool = False
    """Whether its chat template opens a thought, and knows an empty, closed one as well."""


def load_checkpoint(
    name: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device | dict[str, Any] | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: Quantization = "none",
    attn_implementation: str | None = None,
    adapter: str | Path | None = None,
) -> Checkpoint:
    """Load an alias, a hub id, or a folder laid out like the hub's (or like a LoRA adapter's).

    `device`: "cpu", "cuda", "cuda:1", "auto" or a device map for accelerate; by default a GPU where there is
    one. `dtype`: by default the checkpoint's on a GPU and float32 on a CPU. `adapter`: a LoRA folder or id,
    merged into the base weights. `revision`: of a hub id; a folder has none. Raises ModelError.
    """
    files, adapter_files = _resolve(str(name), adapter, revision)
    name = files.name
    raw = files.json("config.json")
    if raw is None:
        raise ModelError(f"{name}: no config.json there; {WHAT_WORKS}")
    for other in (adapters.CONFIG, "shard-*-model-*.safetensors"):  # transformers would load these instead
        if any(files.folder.glob(other)):
            raise ModelError(f"{name}: holds {other} beside config.json; a model's folder holds its own files only")
    raw = without_orders(raw, name)
    _refuse_other_models(name, raw, files)
    _refuse_other_pixels(files)
    target = _device_map(device)
    on_cpu = target == {"": "cpu"}
    options: dict[str, Any] = {
        "dtype": _dtype(dtype, on_cpu, raw),
        "device_map": target,
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    tokenizer = _load_tokenizer(files)
    rows = raw.get("text_config", {}).get("vocab_size")
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if isinstance(rows, int) and highest >= rows:
        raise ModelError(f"{name}: the tokenizer has a token {highest}, the config's vocab_size is {rows}")
    if adapter_files is not None:
        adapters.check(adapter_files)
    weights = files.weights()
    with quiet():
        if quantization != "none":
            options["quantization_config"] = _quantization(quantization, options["dtype"])
        model = _whole(files, weights, raw, options)
        if adapter_files is not None:
            model = adapters.with_adapter(model, adapter_files, merge=quantization == "none")
        refuse_non_finite(model, name if adapter_files is None else f"{name} with {adapter_files.name}")
    model.eval().requires_grad_(False)
    provenance = {
        "model": DEMO if name == ALIASES[DEMO] else name,  # not where somebody's packages happen to lie
        "revision": files.commit or files.revision,
        "fingerprint": files.fingerprint(weights),
        "adapter": None if adapter_files is None else adapter_files.name,
        "model_type": raw["model_type"],
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": quantization,
        "device": str(model.device),
    }
    if adapter_files is not None:
        provenance["adapter_revision"] = adapter_files.commit
        provenance["adapter_fingerprint"] = adapter_files.fingerprint(adapter_files.weights(adapters.STEM))
    return Checkpoint(model, tokenizer, provenance, _thinking(files, raw) == "closable")


def _whole(files: Files, weights: list[Path], raw: dict[str, Any], options: dict[str, Any]) -> PreTrainedModel:
    """The model with all its weights out of the files. Raises ModelError where one is missing or is left over."""
    name = files.name
    stored = read_headers(weights)
    _refuse_other_index(files, stored)
    refuse_claims(raw, stored, name)
    refuse_values(raw, name)
    config = _build_config(raw, name)
    cls = getattr(transformers, MODEL_CLASSES[raw["model_type"]])
    try:
        with torch.device("meta"):
            empty = cls(config)
    except Exception as error:  # a config may ask for anything
        raise ModelError(f"{name}: config.json makes no {raw['model_type']} ({one_line(error)})") from error
    quantized = "quantization_config" in raw
    (refuse_unlike_quantized if quantized else refuse_unlike)(empty, stored, name)
    try:
        model, report = cls.from_pretrained(files.folder, config=config, **options)
    except Exception as error:  # the loader's, a quantizer's, a driver's: all end here as one line
        raise ModelError(f"{name}: {one_line(error)}") from error
    refuse_report(report, name, only=None if quantized else set(empty.state_dict()))
    if quantized and getattr(model, "hf_quantizer", None) is None:
        told = shown(str(raw["quantization_config"]))
        raise ModelError(f"{name}: config.json's quantization_config {told} is none that transformers knows")
    loaded: PreTrainedModel = model
    return loaded


def _refuse_other_index(files: Files, stored: Mapping[str, Stored]) -> None:
    """An index must place every tensor in the file that holds it: the loader goes by both."""
    index = files.indexed()
    if index is None:
        return
    elsewhere = {n for n, t in stored.items() if n in index and index[n] != t.file.name}
    what = f"{files.name}: model.safetensors.index.json and the files it names"
    refuse_tensors(index.keys() - stored.keys(), stored.keys() - index.keys(), elsewhere, what)


def _resolve(name: str, adapter: str | Path | None, revision: str | None) -> tuple[Files, Files | None]:
    """The files of a model and of its adapter: an alias is a hub id, a LoRA adapter's own folder names its base."""
    name = ALIASES.get(name.lower(), name)
    folder = local_folder(name)
    if folder is not None and (folder / adapters.CONFIG).is_file() and not (folder / "config.json").is_file():
        if adapter is not None:
            raise ModelError(
                f"{name}: is an adapter itself; name its base to load it with adapter {shown(str(adapter))}"
            )
        name, adapter = adapters.base_of(Files(name)), name
    near = nearest(shown(name), ALIASES)
    files = Files(name, revision, kinds=f"folder, hub id or alias{near}; {WHAT_WORKS}")
    if adapter is None:
        return files, None
    return files, Files(str(adapter), kinds="folder or hub id, so not an adapter")


def _refuse_other_models(name: str, raw: dict[str, Any], files: Files) -> None:
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_CLASSES:
        raise ModelError(f"{name}: model type {kind!r} is not supported; {WHAT_WORKS}")
    if kind in HYBRIDS and not hasattr(transformers, MODEL_CLASSES[kind]):
        raise ModelError(
            f"{name}: {kind} needs transformers {HYBRIDS_NEED} or newer, this is {transformers.__version__}: "
            f"pip install 'transformers>={HYBRIDS_NEED}'"
        )
    # A Thinking checkpoint answers after a long chain of thought; its next token is no answer.
    if _thinking(files, raw) == "open":
        raise ModelError(
            f"{name}: is a Thinking checkpoint, whose next token is a thought, not an answer; {WHAT_WORKS}"
        )
    text, vision = raw.get("text_config", {}), raw.get("vision_config", {})
    types = text.get("layer_types") or ["full_attention"]
    if not isinstance(types, list) or not all(isinstance(layer, str) for layer in types):
        raise ModelError(f"{name}: config.json's text_config.layer_types is no list of names")
    layers = set(types)
    served = {"full_attention", "linear_attention"} if kind in HYBRIDS else {"full_attention"}
    if layers - served or (text.get("use_sliding_window") and text.get("sliding_window")):
        kinds = ", ".join(sorted(layers)) if layers - served else "sliding-window attention"
        raise ModelError(
            f"{name}: its text model has {kinds}; prefixes can share one pass only under full causal attention"
        )
    expected = {"patch_size": pixels.PATCH, "spatial_merge_size": pixels.MERGE, "temporal_patch_size": 2}
    for key, want in expected.items():
        if vision.get(key, want) != want:
            raise ModelError(f"{name}: vision {key} is {shown(str(vision[key]))}, the layout is made for {want}")


def _refuse_other_pixels(files: Files) -> None:
    """What the checkpoint's own processor would do to frames must be what qwen/pixels.py does."""
    for file in ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"):
        whole = files.json(file) or {}
        nested = [whole.get("image_processor"), whole.get("video_processor")]
        for settings in [whole, *(part for part in nested if isinstance(part, dict))]:
            for key, want in PIXELS.items():
                if settings.get(key, want) != want:
                    told = shown(str(settings[key]))
                    raise ModelError(f"{files.folder / file}: {key} is {told}, frames are prepared with {want}")
    files.json("generation_config.json")  # transformers passes over one that it cannot read


def _chat_template(files: Files) -> str:
    for file in ("chat_template.json", "tokenizer_config.json"):
        template = (files.json(file) or {}).get("chat_template")
        if isinstance(template, str):
            return template
    return files.text("chat_template.jinja") or ""


def _thinking(files: Files, raw: dict[str, Any]) -> Literal["none", "closable", "open"]:
    """What a checkpoint's chat template puts before an answer: nothing, a thought that may be empty, or a thought."""
    template = _chat_template(files)
    # What it writes where the assistant is to begin; before that stand earlier turns and their thoughts.
    begins = template.rpartition("add_generation_prompt")[2]
    if re.search(r"<think>(\\n|\n){2}</think>", begins):
        return "closable"
    if "thinking" in Path(files.name).name.lower() or "<think>" in begins:
        return "open"
    # All published ones of this family know both; a folder without its template is taken for one of them.
    return "closable" if raw.get("model_type") in HYBRIDS and not template else "none"


def _build_config(raw: dict[str, Any], name: str) -> PretrainedConfig:
    """The config object, also for a folder that transformers 5 wrote and 4.57 reads."""
    cls = transformers.CONFIG_MAPPING[raw["model_type"]]
    text = dict(raw.get("text_config", {}))
    rope = text.get("rope_parameters")
    if BEFORE_5 and "num_local_experts" in text:
        raise ModelError(
            f"{name}: saved by transformers 5, which stores experts transposed; "
            f"transformers {transformers.__version__} would read them wrongly: use 5, or the original checkpoint"
        )
    if BEFORE_5 and rope:
        # 5.x writes one `rope_parameters`; 4.57 knows `rope_theta` beside `rope_scaling`.
        text["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
        text["rope_theta"] = rope.get("rope_theta", text.get("rope_theta", 5_000_000.0))
        del text["rope_parameters"]
    try:
        refuse_types(raw, cls(), name)
        config = cls.from_dict(copy.deepcopy(raw | {"text_config": text} if text else raw))
    except ModelError:
        raise
    except Exception as error:  # each version checks other things, and says so in other ways
        raise ModelError(f"{name}: config.json is not a {raw['model_type']} config ({one_line(error)})") from error
    config.name_or_path = name
    return config


def _load_tokenizer(files: Files) -> Tokenizer:
    path = files.path("tokenizer.json")
    if path is None:
        raise ModelError(f"{files.name}: no tokenizer.json there; save the tokenizer in its fast form")
    try:
        hold("max_text_bytes", path.stat().st_size, path, error=ModelError)
        tokenizer = Tokenizer.from_file(str(path))
        # All published ones have this or none; others change words, and some make them longer without end.
        if not isinstance(tokenizer.normalizer, NFC | None):
            kind = type(tokenizer.normalizer).__name__
            raise ModelError(f"{path}: changes texts by {kind} before it reads them, want NFC or nothing")
        tokenizer.encode("True", add_special_tokens=False)
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path}: not a tokenizer ({one_line(error)})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _device_map(device: str | torch.device | dict[str, Any] | None) -> str | dict[str, Any]:
    if isinstance(device, dict):
        return device
    if device is None:
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    if str(device) in ("auto", "balanced", "balanced_low_0", "sequential"):
        return str(device)
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"device '{device}' is unknown; use cpu, cuda, cuda:N or auto") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device '{device}' was asked for, but torch {torch.__version__} sees no GPU")
    return {"": "cuda:0" if str(target) == "cuda" else str(target)}


def _dtype(dtype: str | torch.dtype | None, on_cpu: bool, raw: dict[str, Any]) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None or dtype == "auto":
        stored = raw.get("dtype") or raw.get("torch_dtype") or raw.get("text_config", {}).get("dtype") or "bfloat16"
        dtype = "float32" if on_cpu and dtype is None else str(stored)
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in known:
        raise ModelError(f"dtype '{dtype}' is unknown{nearest(dtype, known)}; there are {', '.join(known)}")
    return known[dtype]


def _quantization(kind: str, dtype: torch.dtype) -> Any:
    if kind not in ("int8", "nf4"):
        raise ModelError(
            f"quantization '{kind}' is unknown{nearest(kind, ['int8', 'nf4', 'none'])}; there are int8, nf4"
        )
    try:
        import bitsandbytes  # noqa: F401
    except Exception as error:  # it loads native libraries at import, and fails in many ways
        raise ModelError(
            f"quantization '{kind}' needs bitsandbytes, which cannot be used: {one_line(error)}"
        ) from error
    # The vision tower and the head stay as they are: small, and where the numbers are read.
    skip = ["visual", "model.visual", "lm_head"]  # 4.57 matches parts of names, 5.x their beginnings
    skip += ["in_proj_a", "in_proj_b"]  # a hybrid's rates of forgetting: tiny, and every later token depends on them
    if kind == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=skip
    )


def warn_if_slow(provenance: dict[str, Any]) -> str | None:
    """transformers 4.57 runs every expert of a mixture for every token; say so once, and in the result."""
    if BEFORE_5 and provenance["model_type"] == "qwen3_vl_moe":
        note = f"transformers {transformers.__version__} computes all experts for every token; 5.x is many times faster"
        warnings.warn(note, stacklevel=3)
        return note
    return None
