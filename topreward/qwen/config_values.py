"""What a config.json may say: values of the right type, all that no tensor's shape could show, and no orders.

In goes the file's object; out comes the same without what would choose code or other files, or a ModelError that names
the key. How large the model is, is qwen/wholeness.py's; which kinds of models work, qwen/loading.py's.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from topreward.errors import ModelError
from topreward.qwen.files import shown

# Keys that name code or files to load, and classes of other heads (a list of their names is made).
ORDERS = {
    *("attn_implementation", "experts_implementation", "fusion_config", "transformers_weights", "auto_map"),
    *("num_labels", "id2label", "label2id"),
}
SECTIONS = ("text_config", "vision_config")
# Both versions of transformers and the hub write these. Left out, each would take its own default: 5.x turns positions
# by another base than the weights were trained with.
NEEDED = {"text_config": ("rms_norm_eps",), "vision_config": ("num_heads",)}
MAY_BE_NULL = ("num_key_value_heads", "sliding_window", "head_dim")


def without_orders(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config without what it has no business to choose; its sections are objects."""
    kept = dict(raw)
    for section in SECTIONS:
        if section in raw:
            if not isinstance(raw[section], dict):
                raise ModelError(f"{name}: config.json's {section} is a {type(raw[section]).__name__}, want an object")
            kept[section] = _kept(raw[section])
    return _kept(kept)


def _kept(part: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in part.items() if k not in ORDERS and not k.startswith("_")}


def refuse_types(raw: Mapping[str, Any], default: PretrainedConfig, name: str, place: str = "") -> None:
    """A value must be of its default's type: transformers 4.57 takes anything, and fails or not when it is used."""
    for key, value in raw.items():
        usual, where = getattr(default, key, None), f"{name}: config.json's {place}{key} is {shown(str(value))}"
        if isinstance(usual, PretrainedConfig) and isinstance(value, dict):
            refuse_types(value, usual, name, f"{key}.")
        if key.endswith("_token_id"):
            ids = value if isinstance(value, list) else [] if value is None else [value]
            if not all(type(i) is int and 0 <= i < 2**31 for i in ids):
                raise ModelError(f"{where}, want a token's number")
        elif key == "dtype" or not isinstance(usual, bool | int | float | str):
            continue
        elif value is None:
            # What all of transformers' models share, of generation for instance, may be left open.
            if key not in MAY_BE_NULL and key in inspect.signature(type(default).__init__).parameters:
                raise ModelError(f"{where}, want a value")
        else:
            number = isinstance(usual, int | float) and not isinstance(usual, bool)
            if not (_is_number(value) if number else isinstance(value, type(usual))):
                kind = "a finite number" if number else {bool: "true or false", str: "a text"}[type(usual)]
                raise ModelError(f"{where}, want {kind}")


def refuse_values(raw: Mapping[str, Any], name: str) -> None:
    """What decides the values and shows in no tensor's shape must be there, and make sense. Raises ModelError.

    Held before: the sizes are whole numbers.
    """
    text, vision = raw.get("text_config", {}), raw.get("vision_config", {})
    needed = {section: list(keys) for section, keys in NEEDED.items()}
    if "moe" in str(raw.get("model_type")):
        needed["text_config"].append("num_experts_per_tok")
    if str(raw.get("model_type")).startswith("qwen3_vl"):
        needed["vision_config"].append("deepstack_visual_indexes")
    for section, keys in needed.items():
        for key in keys:
            if raw.get(section, {}).get(key) is None:
                raise ModelError(f"{name}: config.json has no {section}.{key}")
    eps = text["rms_norm_eps"]
    if not _is_number(eps) or not 0 < eps < 1:
        raise ModelError(f"{name}: config.json's text_config.rms_norm_eps is {shown(str(eps))}, want a small number")
    _refuse_share(text, "num_attention_heads", text.get("num_key_value_heads"), 1, f"{name}: config.json's text_config")
    _refuse_share(
        vision, "hidden_size", vision["num_heads"], 4, f"{name}: config.json's vision_config"
    )  # rotary: 2 axes
    experts, routed = text.get("num_experts", text.get("num_local_experts")), text.get("num_experts_per_tok", 1)
    if experts is not None and not (type(experts) is type(routed) is int and 1 <= routed <= experts):
        raise ModelError(f"{name}: config.json routes to {shown(str(routed))} of {shown(str(experts))} experts")
    seen = vision.get("rope_parameters")
    if isinstance(seen, dict) and not _is_number(seen.get("rope_theta", 1)):
        raise ModelError(f"{name}: config.json's vision_config has rope_theta {shown(str(seen['rope_theta']))}")
    _refuse_rope(text, name, turned=0.25 if str(raw.get("model_type")).startswith("qwen3_5") else 1.0)


def _refuse_share(part: Mapping[str, Any], key: str, among: Any, multiple: int, where: str) -> None:
    """`part[key]` must be a multiple of `among` heads, each a multiple of `multiple`."""
    whole = part.get(key)
    if isinstance(whole, int) and isinstance(among, int) and (among < 1 or whole % (among * multiple)):
        raise ModelError(f"{where}.{key} is {whole}, which {among} heads cannot share")


def _refuse_rope(text: Mapping[str, Any], name: str, *, turned: float) -> None:
    """Sections of M-RoPE that do not fill a head would be cut off without a word.

    `turned`: the share of a head that is turned where the config does not say.
    """
    place = f"{name}: config.json's text_config"
    key = "rope_parameters" if text.get("rope_parameters") is not None else "rope_scaling"
    rope = text.get(key)
    if not isinstance(rope, dict):
        kind = "missing" if rope is None else f"a {type(rope).__name__}"
        raise ModelError(f"{place}.{key} is {kind}, want an object")
    if rope.get("mrope_interleaved", True) is not True:  # transformers interleaves them, whatever this says
        raise ModelError(f"{place}: mrope_interleaved is {shown(str(rope['mrope_interleaved']))}, want true")
    theta: Any = rope.get("rope_theta", text.get("rope_theta"))
    if not _is_number(theta) or theta <= 1:
        raise ModelError(f"{place}: rope_theta is {shown(str(theta))}, want a number above 1")
    sections: Any = rope.get("mrope_section")
    head, share = text.get("head_dim"), rope.get("partial_rotary_factor", text.get("partial_rotary_factor", turned))
    whole = isinstance(sections, list) and len(sections) == 3 and all(type(n) is int and n > 0 for n in sections)
    fills = not isinstance(head, int) or not _is_number(share) or (whole and 2 * sum(sections) == head * share)
    if not whole or not fills:
        raise ModelError(f"{place}: mrope_section is {shown(str(sections))}, want 3 numbers that fill head_dim {head}")


def _is_number(value: Any) -> bool:
    """A finite number that is none of a computer's limits, and not `true`."""
    return type(value) in (int, float) and abs(value) < 1e30 and not math.isnan(value)
