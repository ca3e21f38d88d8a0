"""The description variant: greedy texts of all prefixes at once against transformers' own generate."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from clips import rolled_clip
from topreward.config import load_protocol
from topreward.estimators.topreward import TOPReward


@pytest.mark.parametrize("when", ["per_prefix", "once"])
@pytest.mark.parametrize("name", ["paper", "dense"])
def test_descriptions_and_values_equal_the_slow_twin(
    tiny: TOPReward, name: str, when: Literal["per_prefix", "once"]
) -> None:
    clip = rolled_clip(count=60, height=64, width=64)
    protocol = load_protocol(name, num_prefixes=4, description=when, max_description_tokens=12)
    fast = tiny.score(clip, ["pick up the cup", "drop it"], protocol=protocol)
    slow = tiny.score(clip, ["pick up the cup", "drop it"], protocol=protocol, one_pass=False)
    texts = fast[0].provenance["descriptions"]
    assert texts == slow[0].provenance["descriptions"]
    assert len(set(texts)) == (1 if when == "once" else len(texts))
    assert all(texts)
    for f, s in zip(fast, slow, strict=True):
        np.testing.assert_allclose(f.values, s.values, atol=1e-4, rtol=0)
