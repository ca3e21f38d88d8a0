"""The `paper` protocol against the original implementation's own outputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from checkpoints import GOLDENS
from clips import rolled_clip
from topreward.config import load_protocol
from topreward.estimators.topreward import TOPReward

CASES = json.loads((GOLDENS / "official.json").read_text())["cases"]


@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "slow twin"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["instruction"])
def test_values_are_the_originals(tiny: TOPReward, case: dict[str, Any], one_pass: bool) -> None:
    clip = rolled_clip(**case["frames"], fps=case["fps"])
    protocol = load_protocol("paper", num_prefixes=case["num_prefixes"], chat_template=case["chat_template"])
    curve = tiny.score(clip, case["instruction"], protocol=protocol, one_pass=one_pass)
    assert curve.provenance["video"]["sampled_indices"] == case["sampled_indices"]
    assert curve.prefix_lengths.tolist() == case["prefix_lengths"]
    np.testing.assert_allclose(curve.log_prob_true, case["log_prob_true"], atol=1e-3, rtol=0)
    np.testing.assert_allclose(curve.progress(), case["normalized"], atol=1e-3, rtol=0)
    if not case["chat_template"]:  # there the original scores ` False` where the model was asked for `False`
        np.testing.assert_allclose(curve.log_prob_false, case["log_prob_false"], atol=1e-3, rtol=0)


def test_the_four_cases_are_all_there() -> None:
    assert len(CASES) == 4
    assert {c["chat_template"] for c in CASES} == {True, False}
