"""A LoRA adapter onto a loaded model: all of its tensors, or an error that names those that do not fit.

In go a model and the adapter's files; out comes the model with the adapter merged into its weights, or beside them
where they are quantized. Knows nothing of how the model was loaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from topreward.errors import ModelError
from topreward.qwen.files import Files, one_line, shown
from topreward.qwen.headers import Stored, read_headers
from topreward.qwen.wholeness import refuse_tensors

CONFIG, STEM = "adapter_config.json", "adapter_model"


def base_of(files: Files) -> str:
    """The model that an adapter was trained on. Raises ModelError."""
    base = (files.json(CONFIG) or {}).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{files.folder}: {CONFIG} names no base_model_name_or_path")
    return base


def check(files: Files) -> None:
    """Refuse what is no LoRA adapter before its model is loaded. Raises ModelError."""
    config = files.json(CONFIG)
    if config is None:
        raise ModelError(f"{files.name}: not an adapter for this model (no {CONFIG} there)")
    _refuse_config(config, read_headers(files.weights(STEM)), files.name)


def with_adapter(model: PreTrainedModel, files: Files, *, merge: bool) -> PreTrainedModel:
    """The model with a checked adapter in it, merged or beside the weights. Raises ModelError."""
    where = files.name
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise ModelError(f"adapter {where} needs peft: pip install 'topreward[lora]'") from error
    try:
        wrapped = PeftModel.from_pretrained(model, str(files.folder))
        # Names as the file has them; without the embeddings' flag peft would ask the hub for the base's vocabulary.
        placed = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    except Exception as error:  # whatever a stranger's file makes of peft and torch
        raise ModelError(f"{where}: not an adapter for this model ({one_line(error)})") from error
    [path] = files.weights(STEM)
    _refuse_unplaced(load_file(path), placed, dict(wrapped.state_dict()), where)
    try:
        # Merging into quantized weights would round them again: there the adapter's layers stay beside them.
        merged: PreTrainedModel = wrapped.merge_and_unload() if merge else wrapped.get_base_model()
    except Exception as error:
        raise ModelError(f"{where}: cannot be merged ({one_line(error)})") from error
    return merged


def _refuse_config(config: Mapping[str, Any], stored: Mapping[str, Stored], where: str) -> None:
    """Before a layer is made: the kind, the ranks (lengths of the tensors), and what this peft does not know."""
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{where}: {CONFIG} has peft_type {config.get('peft_type')!r}, only LORA is merged")
    if config.get("layer_replication"):
        raise ModelError(f"{where}: {CONFIG} replicates layers; prefixes share one pass through the model as it is")
    longest = max((n for t in stored.values() if t.count for n in t.shape), default=0)
    pattern = config.get("rank_pattern") or {}
    ranks = [config.get("r", 8), *(pattern.values() if isinstance(pattern, dict) else [pattern])]
    for rank in ranks:
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= longest:
            raise ModelError(f"{where}: {CONFIG} has rank {shown(repr(rank))}, its tensors' lengths are 1 to {longest}")
    try:
        from peft import LoraConfig
    except ImportError:
        return
    known = {field.name for field in dataclasses.fields(LoraConfig)} | {"peft_version"}
    unknown = sorted(key for key, value in config.items() if value and key not in known)
    if unknown:
        raise ModelError(f"{where}: {CONFIG} has {shown(', '.join(unknown))}, unknown to this peft; a newer one may do")


def _refuse_unplaced(
    held: Mapping[str, torch.Tensor],
    placed: Mapping[str, torch.Tensor],
    whole: Mapping[str, torch.Tensor],
    where: str,
) -> None:
    """Every tensor of the file must be in the model, value by value, and every one that the config makes in the file.

    `whole`: all tensors of the wrapped model, since a file may hold embeddings of its own.
    """
    inside = {name: tensor for name in held if (tensor := placed.get(name, whole.get(name))) is not None}
    unlike = {
        name for name, tensor in inside.items() if tensor.device.type != "meta" and not _same(tensor.cpu(), held[name])
    }
    refuse_tensors(placed.keys() - held.keys(), held.keys() - inside.keys(), unlike, f"{where}: {CONFIG} and tensors")


def _same(tensor: torch.Tensor, held: torch.Tensor) -> bool:
    """Equal where the file has NaN as well: that is told of the whole model."""
    return tensor.shape == held.shape and torch.equal(tensor.nan_to_num(), held.to(tensor.dtype).nan_to_num())
