"""A checkpoint's name or folder → model and tokenizer, or one line that says why not.

In goes what a user types; out comes a `Checkpoint`: transformers' own model, the tokenizer as the plain
`tokenizers` object that its tokenizer.json describes (the wrapper classes differ between transformers
versions, the file does not), and what to write into provenance. Nothing is run from the hub
(`trust_remote_code` stays off) and weights are read from safetensors only.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedModel

from topreward.errors import ModelError, nearest
from topreward.qwen import pixels

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
}
MODEL_CLASSES = {
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
}
WHAT_WORKS = f"Qwen3-VL Instruct checkpoints work: {', '.join(ALIASES)}, or a hub id or folder of that kind"

BEFORE_5 = int(transformers.__version__.split(".")[0]) < 5

Quantization = Literal["none", "int8", "nf4"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded model, its tokenizer, and where both came from."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    provenance: dict[str, Any]


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
    name, adapter, revision_of_base = _resolve(str(name), adapter, revision)
    files = _Files(name, revision_of_base)
    raw = files.json("config.json")
    if raw is None:
        raise ModelError(f"{name}: no config.json there; {WHAT_WORKS}")
    _refuse_other_models(name, raw, files)
    config = _build_config(raw, name)
    tokenizer = _load_tokenizer(files)

    target = _device_map(device)
    on_cpu = target == {"": "cpu"}
    options: dict[str, Any] = {
        "config": config,
        "dtype": _dtype(dtype, on_cpu, raw),
        "device_map": target,
        "use_safetensors": True,
        "local_files_only": True,
    }
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if quantization != "none":
        options["quantization_config"] = _quantization(quantization, options["dtype"])
    cls = getattr(transformers, MODEL_CLASSES[raw["model_type"]])
    try:
        model = cls.from_pretrained(files.fetch_weights(), **options)
    except (OSError, ImportError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{name}: {_one_line(error)}") from error
    if adapter is not None:
        model = _with_adapter(model, str(adapter), quantization)
    model.eval().requires_grad_(False)
    provenance = {
        "model": DEMO if name == ALIASES[DEMO] else name,  # not where somebody's packages happen to lie
        "revision": files.commit or revision_of_base,
        "adapter": None if adapter is None else str(adapter),
        "model_type": raw["model_type"],
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": quantization,
        "device": str(model.device),
    }
    return Checkpoint(model, tokenizer, provenance)


class _Files:
    """A checkpoint's folder: the user's own, or the hub's snapshot, which the cache serves offline as well."""

    def __init__(self, name: str, revision: str | None) -> None:
        self.name, self.revision = name, revision
        self.folder = Path(name).expanduser()
        self.local = self.folder.is_dir()
        self.commit: str | None = None
        if self.local and revision is not None:
            raise ModelError(f"{name}: a folder has no revisions; leave out the revision '{revision}'")
        if not self.local:
            if self.folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
                raise ModelError(f"'{name}' is no folder, hub id or alias{nearest(name, ALIASES)}; {WHAT_WORKS}")
            # The small files first: a checkpoint of another kind is refused before its weights are fetched.
            self.folder = self._snapshot(["*.json", "*.jinja"])
            self.commit = self.folder.name

    def fetch_weights(self) -> Path:
        """The folder, weights included."""
        return self.folder if self.local else self._snapshot(["*.json", "*.jinja", "*.safetensors"])

    def _snapshot(self, patterns: list[str]) -> Path:
        try:
            return Path(snapshot_download(self.name, revision=self.commit or self.revision, allow_patterns=patterns))
        except LocalEntryNotFoundError as error:
            raise ModelError(f"{self.name}: the hub cannot be reached, and its cache does not hold it") from error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise ModelError(f"{self.name}: {_one_line(error)}") from error

    def path(self, file: str) -> Path | None:
        path = self.folder / file
        return path if path.is_file() else None

    def json(self, file: str) -> dict[str, Any] | None:
        path = self.path(file)
        if path is None:
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ModelError(f"{path}: not readable as JSON ({error})") from error
        if not isinstance(data, dict):
            raise ModelError(f"{path}: holds a {type(data).__name__}, want an object")
        return data

    def chat_template(self) -> str:
        for file in ("chat_template.json", "tokenizer_config.json"):
            template = (self.json(file) or {}).get("chat_template")
            if isinstance(template, str):
                return template
        path = self.path("chat_template.jinja")
        return path.read_text(encoding="utf-8") if path else ""


def _resolve(name: str, adapter: str | Path | None, revision: str | None) -> tuple[str, str | Path | None, str | None]:
    """Alias → hub id; a LoRA adapter's own folder → its base model and itself."""
    name = ALIASES.get(name.lower(), name)
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ModelError(f"{folder}: adapter_config.json names no base_model_name_or_path")
        return base, folder, revision
    return name, adapter, revision


def _refuse_other_models(name: str, raw: dict[str, Any], files: _Files) -> None:
    kind = raw.get("model_type")
    if kind not in MODEL_CLASSES:
        raise ModelError(f"{name}: model type {kind!r} is not supported; {WHAT_WORKS}")
    # A Thinking checkpoint answers after a long chain of thought; its next token is no answer.
    template = files.chat_template()
    if "thinking" in Path(name).name.lower() or re.search(r"assistant(\\n|\n)<think>", template):
        raise ModelError(
            f"{name}: is a Thinking checkpoint, whose next token is a thought, not an answer; {WHAT_WORKS}"
        )
    text, vision = raw.get("text_config", {}), raw.get("vision_config", {})
    layers = set(text.get("layer_types") or ["full_attention"])
    if layers != {"full_attention"} or (text.get("use_sliding_window") and text.get("sliding_window")):
        kinds = ", ".join(sorted(layers)) if layers != {"full_attention"} else "sliding-window attention"
        raise ModelError(
            f"{name}: its text model has {kinds}; prefixes can share one pass only under full causal attention"
        )
    expected = {"patch_size": pixels.PATCH, "spatial_merge_size": pixels.MERGE, "temporal_patch_size": 2}
    for key, want in expected.items():
        if vision.get(key, want) != want:
            raise ModelError(f"{name}: vision {key} is {vision[key]}, the layout is made for {want}")


def _build_config(raw: dict[str, Any], name: str) -> PretrainedConfig:
    """The config object, also for a folder that transformers 5 wrote and 4.57 reads."""
    cls = transformers.CONFIG_MAPPING[raw["model_type"]]
    data = json.loads(json.dumps(raw))
    text = data.get("text_config", {})
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
        config = cls.from_dict(data)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"{name}: config.json is not a {raw['model_type']} config ({_one_line(error)})") from error
    config.name_or_path = name
    return config


def _load_tokenizer(files: _Files) -> Tokenizer:
    path = files.path("tokenizer.json")
    if path is None:
        raise ModelError(f"{files.name}: no tokenizer.json there; save the tokenizer in its fast form")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path}: not a tokenizer ({_one_line(error)})") from error
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
            f"quantization '{kind}' needs bitsandbytes, which cannot be used: {_one_line(error)}"
        ) from error
    # The vision tower and the head stay as they are: small, and where the numbers are read.
    skip = ["visual", "model.visual", "lm_head"]  # 4.57 matches parts of names, 5.x their beginnings
    if kind == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=skip
    )


def _with_adapter(model: PreTrainedModel, adapter: str, quantization: str) -> PreTrainedModel:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError(f"adapter {adapter} needs peft: pip install 'topreward[lora]'") from error
    try:
        wrapped = PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{adapter}: not an adapter for this model ({_one_line(error)})") from error
    # Merging into quantized weights would round them again: there the adapter's layers stay beside them.
    merged: PreTrainedModel = wrapped.merge_and_unload() if quantization == "none" else wrapped.get_base_model()
    return merged


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def warn_if_slow(provenance: dict[str, Any]) -> str | None:
    """transformers 4.57 runs every expert of a mixture for every token; say so once, and in the result."""
    if BEFORE_5 and provenance["model_type"] == "qwen3_vl_moe":
        note = f"transformers {transformers.__version__} computes all experts for every token; 5.x is many times faster"
        warnings.warn(note, stacklevel=3)
        return note
    return None
