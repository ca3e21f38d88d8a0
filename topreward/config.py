"""How a curve is made, as data: protocols and wordings, loaded from configs/*.yaml.

In goes a name or a yaml file, with overrides; out comes a frozen, validated model. Unknown keys and values
out of range are ConfigErrors that name the file, the key and, for a typo, the key that was probably meant.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from topreward.errors import ConfigError, nearest
from topreward.files import read_text
from topreward.limits import hold, hold_fps

Config = TypeVar("Config", bound=BaseModel)


class Wording(BaseModel):
    """The texts of a prompt; see configs/wordings/topreward.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    opening: str
    """Before the video."""
    question: str
    """After the video; `{instruction}` stands for the task, exactly once."""
    answer_true: str
    answer_false: str
    chat_closing: str
    """Closes the prompt where the protocol sets `chat_template`."""
    closed_thinking: str = "<think>\n\n</think>\n\n"
    """After that, for a checkpoint whose template opens a thought there: closes it empty, so that an answer is next."""
    description_request: str
    described_question: str
    """As `question`, with `{description}` as well."""

    @field_validator("question", "described_question")
    @classmethod
    def _one_instruction(cls, text: str) -> str:
        if text.count("{instruction}") != 1:
            raise ValueError("must contain {instruction} exactly once")
        return text

    @field_validator("described_question")
    @classmethod
    def _one_description(cls, text: str) -> str:
        if text.count("{description}") != 1:
            raise ValueError("must contain {description} exactly once")
        return text


class Protocol(BaseModel):
    """Every choice that changes a number; see configs/paper.yaml and docs/protocol.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    frames: Literal["index_grid", "time_grid"]
    """Which raw frames are sampled: by index as in the paper, or by presentation time with the last frame kept."""
    sampling_fps: float = Field(gt=0, allow_inf_nan=False)
    """Sampled frames per second."""
    timestamps: Literal["index", "presentation"]
    """The prompt's times: raw index / fps, or the true presentation times."""
    resize: Literal["square", "keep_aspect"]
    """The paper's 244 → 256 px square, or one size per video that keeps the aspect ratio."""
    frame_pixels: int = Field(ge=32 * 32, le=4096 * 4096)
    """keep_aspect: most pixels of a resized frame."""
    prefix_ends: Literal["frames", "patches"]
    """Prefixes in raw frames as in the paper, or ending on temporal-patch boundaries."""
    num_prefixes: int = Field(ge=0)
    """0: every frame (frames), or every temporal patch (patches)."""
    constant_progress: Literal["ones", "nan"]
    """Progress of a constant curve."""
    chat_template: bool
    description: Literal["none", "per_prefix", "once"]
    max_description_tokens: int = Field(ge=1)
    wording: Wording

    @property
    def claims_parity(self) -> bool:
        """Whether frames, sizes, prefixes and wording are all the paper's."""
        paper = load_protocol("paper")
        free = {"name", "num_prefixes", "chat_template", "constant_progress", "max_description_tokens"}
        return self.model_dump(exclude=free) == paper.model_dump(exclude=free)


def load_protocol(source: str | os.PathLike[str] | Protocol = "paper", **overrides: Any) -> Protocol:
    """A protocol by name (`paper`, `dense`), from a yaml file, or another protocol; `overrides` replace its keys.

    `load_protocol("paper", num_prefixes=0, chat_template=True)`. `wording` may be a name, a file or a mapping.
    Raises ConfigError on unknown names, unknown keys and values out of range.
    """
    if isinstance(source, Protocol):
        if not overrides:
            return source
        data, where = source.model_dump(), f"protocol {source.name}"
    else:
        path = find_config(source)
        data, where = read_yaml(path), str(source)
        if "estimator" in data:
            raise ConfigError(f"{source}: is a protocol of the estimator '{data['estimator']}', not of TOPReward")
    data.update(overrides)
    wording = data.get("wording")
    if isinstance(wording, Wording):
        data["wording"] = wording.model_dump()
    elif isinstance(wording, (str, os.PathLike)):
        data["wording"] = load_wording(wording).model_dump()
    protocol = validate(Protocol, data, where)
    hold_fps(protocol.sampling_fps, f"{where}: sampling_fps")
    hold("max_frames", protocol.num_prefixes, f"{where}: num_prefixes")
    return protocol


def load_wording(source: str | os.PathLike[str]) -> Wording:
    """A wording by name (`topreward`) or from a yaml file. Raises ConfigError."""
    return validate(Wording, read_yaml(find_config(source, folder="wordings")), str(source))


def config_folder() -> Path:
    """Where the yaml files are: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def find_config(source: str | os.PathLike[str], folder: str = "") -> Path:
    """The yaml file meant by a name or a path. Raises ConfigError that lists the names."""
    text = os.fspath(source)
    if text.endswith((".yaml", ".yml")) or os.sep in text:
        path = Path(text).expanduser()
        if not path.is_file():
            raise ConfigError(f"{text}: no such file")
        return path
    home = config_folder() / folder
    path = home / f"{text}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in home.glob("*.yaml"))
        raise ConfigError(f"no config named '{text}'{nearest(text, names)}; there are {', '.join(names)}")
    return path


# PyYAML's own, and what its constructors let through for `!!int`, `!!bool x`, a date of month 13, too deep a nesting.
YAML_ERRORS = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class _NoAliases(yaml.SafeLoader):
    """Takes no `*alias`: ten lines of them stand for more values than fit into a machine."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"*{event.anchor}: aliases are not read", event.start_mark)
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """A yaml file that holds a mapping. Raises ConfigError otherwise."""
    try:
        data = yaml.load(read_text(path, error=ConfigError, most="max_yaml_bytes"), Loader=_NoAliases)
    except ConfigError:
        raise
    except YAML_ERRORS as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: not readable as yaml ({why[:500]})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, want a mapping of keys")
    return data


def validate(model: type[Config], data: Mapping[str, Any], where: str) -> Config:
    """Build a pydantic model; its complaints become one ConfigError line with the nearest key."""
    # yaml reads a bare `nan` as text and `.nan` as a float; both mean the word here.
    data = {k: "nan" if isinstance(v, float) and math.isnan(v) else v for k, v in data.items()}
    if not all(isinstance(key, str) for key in data):
        wrong = next(key for key in data if not isinstance(key, str))
        raise ConfigError(f"{where}: the key {_short(wrong)} is no text")
    for key, text in [*data.items(), *(data["wording"].items() if isinstance(data.get("wording"), dict) else ())]:
        if isinstance(text, str):
            hold("max_instruction", len(text), f"{where}: {key}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_complaint(model, e) for e in error.errors())}") from None


def _complaint(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = (Wording if key.startswith("wording.") else model).model_fields
        return f"unknown key '{key}'{nearest(key.rpartition('.')[2], fields)}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    return f"{key} is {_short(error['input'])}: {error['msg'].lower()}"


def _short(value: Any) -> str:
    few = reprlib.Repr()
    few.maxstring = few.maxother = 200
    return few.repr(value)
