"""Protocols and wordings: by name, from files, with overrides; typos name the nearest key."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward.config import Protocol, config_folder, load_protocol, load_wording
from topreward.errors import ConfigError, PromptError
from topreward.estimators.topreward import prompts


def test_paper_is_the_default_and_claims_parity() -> None:
    assert load_protocol() == load_protocol("paper")
    assert load_protocol("paper", num_prefixes=3, chat_template=True).claims_parity
    assert not load_protocol("paper", sampling_fps=1).claims_parity
    assert not load_protocol("dense").claims_parity


def test_the_papers_prompt_word_for_word() -> None:
    wording = load_wording("topreward")
    assert wording.opening == "<|im_start|>user\n"
    assert prompts.question(wording, "pick up the cup") == (
        "The above video shows a robot manipulation trajectory that completes the following task: "
        "pick up the cup Decide whether the above statement is True or not. The answer is:"
    )
    assert prompts.question(wording, "fold", chat_template=True).endswith("is:<|im_end|>\n<|im_start|>assistant\n")
    assert prompts.question(wording, "fold", description="It folds.") == (
        "It folds. Therefore given the above description and the video, the video shows a robot manipulation "
        "trajectory that **completes** the following instruction: fold Decide whether the above statement is True or "
        "not. The answer is:"
    )
    assert prompts.answers(wording) == (" True", " False")
    assert prompts.answers(wording, chat_template=True) == ("True", "False")
    assert prompts.description_request(wording) == (
        "Describe the robot manipulation trajectory in this video:<|im_end|>\n<|im_start|>assistant\n"
    )


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_braces_in_texts_are_words(instruction: str, description: str) -> None:
    wording = load_wording("topreward")
    question = prompts.question(wording, instruction, description=description)
    before, after = wording.described_question.split("{instruction}")
    assert question == before.replace("{description}", description) + instruction + after


def test_an_empty_instruction_is_refused() -> None:
    with pytest.raises(PromptError, match="empty"):
        prompts.question(load_wording("topreward"), " \n")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_prefix": 3}, r"paper: unknown key 'num_prefix' \(did you mean 'num_prefixes'\?\)"),
        ({"sampling_fps": 0}, "sampling_fps is 0: "),
        ({"sampling_fps": float("inf")}, "sampling_fps"),
        ({"frames": "all"}, "frames is 'all': .*index_grid.*time_grid"),
        ({"num_prefixes": -1}, "num_prefixes is -1"),
        ({"wording": "toprewrad"}, r"no config named 'toprewrad' \(did you mean 'topreward'\?\)"),
        ({"wording": {"opening": ""}}, "wording.question' is missing"),
    ],
)
def test_mistakes_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_protocol("paper", **overrides)


def test_own_files(tmp_path: Path) -> None:
    wording = tmp_path / "mine.yaml"
    text = (config_folder() / "wordings" / "topreward.yaml").read_text()
    wording.write_text(text.replace("Decide whether", "Say if"))
    protocol = tmp_path / "slow.yaml"
    own = (config_folder() / "dense.yaml").read_text().replace("sampling_fps: 2.0", "sampling_fps: 1.0")
    protocol.write_text(own.replace("wording: topreward", f"wording: {wording}"))
    loaded = load_protocol(protocol, num_prefixes=4)
    assert (loaded.sampling_fps, loaded.num_prefixes) == (1.0, 4)
    assert "Say if" in loaded.wording.question
    assert load_protocol(loaded, wording="topreward").wording == load_wording("topreward")
    wording.write_text(text.replace("{instruction}", "the task"))
    with pytest.raises(ConfigError, match=r"must contain \{instruction\} exactly once"):
        load_protocol(protocol)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not readable as yaml"), ("- a", "holds a list")])
def test_broken_yaml_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_protocol(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        load_protocol(tmp_path / "none.yaml")


def test_protocols_are_frozen() -> None:
    protocol: Any = load_protocol("paper")
    with pytest.raises(ValueError):  # the words are pydantic's
        protocol.sampling_fps = 3.0
    assert protocol.sampling_fps == load_protocol("paper").sampling_fps
    assert isinstance(protocol, Protocol)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefghij")
)
NO_YAML = {
    "laughs": LAUGHS,
    "one alias": "a: &a 1\nb: *a\n",
    "merge": "a: &a {x: 1}\nb:\n  <<: *a\n",
    "deep": "[" * 100_000,
    "deep maps": "{a: " * 100_000,
    "month 13": "a: 2001-13-45\n",
    "no integer": "a: !!int ''\n",
    "no truth": "a: !!bool x\n",
    "no number": "a: !!float x\n",
    "digits": f"a: {'9' * 100_000}\n",
    "code": "a: !!python/object/apply:os.system ['true']\n",
    "unhashable": "? [a]\n: 1\n",
    "binary": "a: !!binary '='\n",
    "number for a key": "1: 2\n",
    "long": f"a: {'x' * 9000}\n",
    "latin": b"a: \xe9\n",
}


@pytest.mark.parametrize("name", NO_YAML)
def test_files_that_are_no_protocol(tmp_path: Path, name: str) -> None:
    text = NO_YAML[name]
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for load in (load_protocol, load_wording):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1500


def test_a_protocol_larger_than_its_limit_or_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"# {'x' * 2_000_000}\n")
    with pytest.raises(ConfigError, match="TOPREWARD_MAX_YAML_BYTES"):
        load_protocol(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError):
        load_protocol(path)


def test_wordings_hold_texts_of_a_bounded_length() -> None:
    wording = load_wording("topreward").model_dump()
    with pytest.raises(ConfigError, match=r"opening: .*TOPREWARD_MAX_INSTRUCTION"):
        load_protocol("paper", wording=wording | {"opening": "x" * 9000})
