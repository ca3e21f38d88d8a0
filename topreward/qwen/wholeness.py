"""Whether a checkpoint is whole: its config.json, the tensors it holds and the model made of them say the same.

Three looks, each before what the next one costs: the config's sizes against the tensors' (before a model is laid out),
the model's tensors against those on disk by name and shape (before memory is spent), and what the loader reports with
the values themselves. What does not fit is a ModelError that counts and names it. Knows nothing of how files are found
and of how models are loaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from math import prod
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from topreward.errors import ModelError
from topreward.qwen.headers import Stored

# Keys of a config that are lengths of a tensor or numbers of layers. Positions that a model may reach are not.
SIZE = re.compile(r"^(?!max_)(num_.*|.*_(size|dim|heads|layers|experts)|depth|in_channels)$")
NUMBERED = re.compile(r"\.(\d+)\.")
EXPERTS = re.compile(r"^(.*\.experts)\..+$")
LONG = 2**24  # longer than any vocabulary; on `meta` such a tensor takes no memory
SHOWN = 3
BOTH = "weights and config.json"


def refuse_claims(raw: Mapping[str, Any], stored: Mapping[str, Stored], where: str) -> None:
    """Hold the sizes in config.json to the tensors, so that laying the model out costs no more than they promise.

    Only what is far beyond them: of a small difference `refuse_unlike` says more, by the tensors' names. Raises
    ModelError, also for sizes that are no numbers.
    """
    longest = max((n for t in stored.values() if t.count for n in t.shape), default=0)
    layers = 1 + max((int(n) for name in stored for n in NUMBERED.findall(name) if len(n) < 9), default=0)
    layers = min(layers, len(stored))
    for section in ("text_config", "vision_config"):
        for key, value in raw.get(section, {}).items():
            place = f"{where}: config.json's {section}.{key}"
            if key == "deepstack_visual_indexes":
                _refuse_deepstack(value, raw, place)
            if value is None or isinstance(value, bool | dict | list) or not SIZE.match(key):
                continue
            if not isinstance(value, int) or value < 0:
                raise ModelError(f"{place} is {_brief(value)}, want a whole number")
            if key in ("num_hidden_layers", "depth") and value > 2 * layers + 8:
                raise ModelError(f"{place} is {_brief(value)}, but the weights hold at most {layers} layers")
            if value > max(longest, LONG):
                raise ModelError(f"{place} is {_brief(value)}, but no tensor there is longer than {longest}")


def _refuse_deepstack(value: Any, raw: Mapping[str, Any], place: str) -> None:
    depth = raw.get("vision_config", {}).get("depth")
    whole = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    # Out of order, each merger would be given the features of another layer.
    if not whole or sorted(set(value)) != value or min(value, default=0) < 0:
        raise ModelError(f"{place} is {_brief(value)}, want the numbers of vision layers, each once and in order")
    if isinstance(depth, int) and max(value, default=-1) >= depth:
        raise ModelError(f"{place} names layer {_brief(max(value))}, but there are {_brief(depth)}")
    layers = raw.get("text_config", {}).get("num_hidden_layers")
    if isinstance(layers, int) and len(value) > layers:  # the rest would be left out without a word
        raise ModelError(
            f"{place} has {len(value)} layers' features, the text model {_brief(layers)} layers to add them"
        )


def refuse_unlike(model: PreTrainedModel, stored: Mapping[str, Stored], where: str) -> None:
    """Hold the names and shapes on disk to those of a model laid out on `meta`. Raises ModelError.

    Not asked for: a second name of tied weights, and buffers that are computed (`inv_freq`). Experts may lie apart, or
    transposed, as each version of transformers has them: of them only the number of elements is compared.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = _tied(model)
    ignored = [re.compile(p) for p in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    computed = {name for name, _ in model.named_buffers()} - set(wanted)
    held = {
        name: tensor
        for name, tensor in _with_prefix(model, stored).items()
        if name not in computed and not any(p.search(name) for p in ignored)
    }
    for name in tied:
        if name in held and wanted[tied[name]] == held[name].shape:
            _refuse_untied(held[name], name, held.get(tied[name]), tied[name], where)
    needed = {name: shape for name, shape in wanted.items() if name not in tied}
    missing, unexpected = needed.keys() - held.keys(), held.keys() - wanted.keys()
    unlike = {
        f"{name} is {held[name].shape}, the config asks for {wanted[name]}"
        for name in held.keys() & wanted.keys()
        if held[name].shape != wanted[name] and not _transposed_experts(name, held[name].shape, wanted[name])
    }
    # Codes of a quantizer would be cast as if they were the weights.
    unlike |= {
        f"{name} is {held[name].dtype}, want floating point"
        for name in held.keys() & wanted.keys()
        if not held[name].dtype.startswith(("F", "BF"))
    }
    apart = _experts_apart(missing, unexpected, needed, held)
    missing, unexpected = missing - apart, unexpected - apart
    refuse_tensors(missing, unexpected, unlike, f"{where}: {BOTH}")


def refuse_unlike_quantized(model: PreTrainedModel, stored: Mapping[str, Stored], where: str) -> None:
    """As `refuse_unlike`, for weights that a quantizer wrote: of a layer's weight it may have made others beside it.

    A weight is missing where nothing of its layer is there, or only what describes it (`weight.absmax`). The loader
    holds the rest. Raises ModelError.
    """
    held = _with_prefix(model, stored)
    layers = {name.rpartition(".")[0] for name in held}
    described = {name[: m.start()] for name in held for m in re.finditer(r"\.", name)}
    described |= {name.removesuffix("SCB") + "weight" for name in held if name.endswith(".SCB")}  # int8's scales
    tied = _tied(model)
    needed = model.state_dict().keys() - tied.keys() - held.keys()
    missing = {n for n in needed if not EXPERTS.match(n) and (n in described or n.rpartition(".")[0] not in layers)}
    refuse_tensors(missing, set(), set(), f"{where}: {BOTH}")


def _tied(model: PreTrainedModel) -> dict[str, str]:
    """The second names of tied weights, and the name that a checkpoint keeps them under."""
    model.tie_weights()
    first: dict[int, str] = {}
    tied = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        kept = first.setdefault(id(parameter), name)
        if kept != name:
            tied[name] = kept
    return tied


def _with_prefix(model: PreTrainedModel, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """A model saved without its head has no prefix; transformers puts it back."""
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name in stored):
        return dict(stored)
    heads = {name for name in model.state_dict() if not name.startswith(prefix)}
    return {name if name in heads else prefix + name: tensor for name, tensor in stored.items()}


def _transposed_experts(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return bool(EXPERTS.match(name)) and len(shape) == 3 and (shape[0], shape[2], shape[1]) == wanted


def _experts_apart(
    missing: Collection[str],
    unexpected: Collection[str],
    needed: Mapping[str, tuple[int, ...]],
    held: Mapping[str, Stored],
) -> set[str]:
    """Names of experts that one side has as one tensor and the other expert by expert, elements being as many."""
    count: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    sides: dict[str, list[set[str]]] = defaultdict(lambda: [set(), set()])
    for side, names in enumerate((missing, unexpected)):
        for name in names:
            if found := EXPERTS.match(name):
                sides[found[1]][side].add(name)
                count[found[1]][side] += prod(needed[name]) if side == 0 else held[name].count
    return {n for group, (a, b) in sides.items() if len(set(count[group])) == 1 and len(a) != len(b) for n in a | b}


def _refuse_untied(second: Stored, name: str, first: Stored | None, first_name: str, where: str) -> None:
    """A head of its own beside a config that ties it would be dropped by one transformers and kept by another."""
    if first is None or second.shape != first.shape:
        return
    step = max(1, 2**24 // prod(second.shape[1:]))
    with safe_open(str(second.file), framework="pt") as a, safe_open(str(first.file), framework="pt") as b:
        mine = a.get_slice(second.name)
        other = b.get_slice(first.name)
        for row in range(0, second.shape[0], step):
            if not torch.equal(mine[row : row + step], other[row : row + step]):
                raise ModelError(f"{where}: {name} differs from {first_name}, but config.json ties them")


def refuse_report(report: Mapping[str, Any], where: str, *, only: Collection[str] | None = None) -> None:
    """Hold what transformers says of a load to nothing at all. `only`: the names it may say are missing.

    Raises ModelError.
    """
    missing = {str(n) for n in report.get("missing_keys") or ()}
    if only is not None:  # what a quantizer adds to a layer is made while loading
        missing &= set(only)
    unlike = {str(entry[0]) if isinstance(entry, tuple | list) else str(entry) for entry in report["mismatched_keys"]}
    unexpected = {str(n) for n in report.get("unexpected_keys") or () if not str(n).endswith(".inv_freq")}
    refuse_tensors(missing, unexpected, unlike, f"{where}: {BOTH}")
    if report.get("error_msgs"):
        raise ModelError(f"{where}: {' '.join(str(report['error_msgs']).split())}")


def refuse_non_finite(model: torch.nn.Module, where: str) -> None:
    """Look for NaN and infinity in all weights of two bytes and more: one pass over them. Raises ModelError."""
    bad = []
    for name, weight in model.named_parameters():
        # Offloaded weights are on `meta` and one-byte ones are codes: the values read from them tell.
        if weight.is_floating_point() and weight.element_size() > 1 and weight.device.type != "meta" and weight.numel():
            low, high = torch.aminmax(weight.detach())  # keeps no copy, and NaN comes through
            if not (torch.isfinite(low) & torch.isfinite(high)):
                bad.append(name)
    if bad:
        raise ModelError(f"{where}: {_count(bad, 'tensor')} with values that are NaN or infinite: {_names(bad)}")


def refuse_tensors(missing: Collection[str], unexpected: Collection[str], unlike: Collection[str], what: str) -> None:
    """Raise ModelError where any of the three holds a name. `what`: which two do not fit."""
    parts = []
    if missing:
        parts.append(f"{_count(missing, 'tensor')} missing: {_names(missing)}")
    if unexpected:
        parts.append(f"{_count(unexpected, 'tensor')} without a place in the model: {_names(unexpected)}")
    if unlike:
        parts.append(f"{_count(unlike, 'tensor')} unlike the model's: {_names(unlike)}")
    if parts:
        raise ModelError(f"{what} do not fit; {'; '.join(parts)}")


def _count(names: Collection[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) != 1)}"


def _names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - SHOWN
    return ", ".join(n if n.isprintable() else repr(n) for n in ordered[:SHOWN]) + (f" and {rest} more" * (rest > 0))


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python prints
        return "out of all bounds"
    return text if len(text) <= 40 else f"{text[:37]}…"
