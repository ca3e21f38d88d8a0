"""How a GVL curve is made, as data: protocols and wordings, loaded from configs/gvl*.yaml.

As `topreward.config` is for TOPReward: in goes a name or a yaml file, with overrides; out comes a frozen,
validated model, or a ConfigError that names the key.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from topreward.config import config_folder, find_config, read_yaml, validate
from topreward.errors import ConfigError, nearest

MAX_EXAMPLES = 5


class GVLWording(BaseModel):
    """The texts of a GVL prompt, between its images; see configs/wordings/gvl.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    opening: str
    """Before everything: the chat template's."""
    task: str
    """What it is about; `{task}` stands for the instruction."""
    anchor_label: str
    """Before the first frame of the episode."""
    anchor_statement: str
    """After it."""
    example_label: str
    """Before each frame of an in-context episode; `{i}` stands for its number."""
    example_answer: str
    """After it; `{p}` stands for its percentage."""
    request: str
    """After anchor and examples. Asks for lines that name each frame `Frame <number>`, as the parser reads them."""
    frame_label: str
    """Before each frame to be judged; `{i}` stands for its number."""
    frame_end: str
    """After it."""
    closing: str
    """After everything: the chat template's."""

    @field_validator("task")
    @classmethod
    def _names_the_task(cls, text: str) -> str:
        return _once(text, "{task}")

    @field_validator("example_label", "frame_label")
    @classmethod
    def _numbers_the_frame(cls, text: str) -> str:
        return _once(text, "{i}")

    @field_validator("example_answer")
    @classmethod
    def _says_the_percentage(cls, text: str) -> str:
        return _once(text, "{p}")


class GVLProtocol(BaseModel):
    """Every choice that changes a number of GVL; see configs/gvl.yaml and docs/gvl.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: Literal["gvl"]
    """Tells the file from a TOPReward protocol."""
    name: str
    num_frames: int = Field(ge=1, le=1000)
    """Frames to be judged, evenly spread over the clip; also those of each in-context episode."""
    resize: Literal["square", "keep_aspect"]
    """244 → 256 px square, or one size per clip that keeps the aspect ratio."""
    frame_pixels: int = Field(ge=32 * 32, le=4096 * 4096)
    """keep_aspect: most pixels of a resized frame."""
    seed: int = Field(ge=0)
    """With the episode's id, decides the order in which frames are shown."""
    max_new_tokens: int = Field(ge=1)
    """Most tokens of an answer."""
    wording: GVLWording


def load_gvl_protocol(source: str | os.PathLike[str] | GVLProtocol = "gvl", **overrides: Any) -> GVLProtocol:
    """A GVL protocol by name (`gvl`, `gvl-paper`), from a yaml file, or another one; `overrides` replace its keys.

    `load_gvl_protocol("gvl", num_frames=30, wording="gvl-paper")`. Raises ConfigError on unknown names, unknown
    keys and values out of range, and for a protocol of TOPReward.
    """
    if isinstance(source, GVLProtocol):
        if not overrides:
            return source
        data, where = source.model_dump(), f"protocol {source.name}"
    else:
        data, where = _read(source), str(source)
    data.update(overrides)
    wording = data.get("wording")
    if isinstance(wording, dict):
        data["wording"] = validate(GVLWording, wording, f"{where}, wording")
    elif isinstance(wording, (str, os.PathLike)):
        path = find_config(wording, folder="wordings")
        data["wording"] = validate(GVLWording, read_yaml(path), f"wording {os.fspath(wording)}")
    return validate(GVLProtocol, data, where)


def gvl_protocols() -> list[str]:
    """Names of the GVL protocols that are shipped."""
    found = config_folder().glob("*.yaml")
    return sorted(path.stem for path in found if read_yaml(path).get("estimator") == "gvl")


def _read(source: str | os.PathLike[str]) -> dict[str, Any]:
    text, names = os.fspath(source), gvl_protocols()
    named = os.sep not in text and not text.endswith((".yaml", ".yml"))
    if named and text not in names and not (config_folder() / f"{text}.yaml").is_file():
        raise ConfigError(f"no GVL protocol named '{text}'{nearest(text, names)}; there are {', '.join(names)}")
    data = read_yaml(find_config(source))
    if data.get("estimator") != "gvl":
        raise ConfigError(f"{text}: not a GVL protocol (it lacks `estimator: gvl`); there are {', '.join(names)}")
    return data


def _once(text: str, field: str) -> str:
    if text.count(field) != 1:
        raise ValueError(f"must contain {field} exactly once")
    return text
