"""Two runs held against each other: the same episodes, curves, errors and notes, whoever carried them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from topreward.evaluation import EvalRun, Folder
from topreward.jobs.episode import Measured

TIMINGS = ("seconds", "decode_seconds", "packed")
"""What two runs may differ in: how long it took, and how many clips shared a pass."""


def measured(folder: Folder, run: EvalRun) -> list[Measured]:
    """All episodes as they lie on disk, in the dataset's order."""
    found = [folder.load(name) for name in run.planned]
    assert all(found)
    return found  # type: ignore[return-value]


def without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_timings(v) for k, v in value.items() if k not in TIMINGS}
    return [without_timings(v) for v in value] if isinstance(value, list) else value


def same_bytes(one: Sequence[Measured], other: Sequence[Measured]) -> None:
    """Every number to the last bit."""
    texts = [[json.dumps(without_timings(m.to_dict()), default=str) for m in part] for part in (one, other)]
    assert texts[0] == texts[1]


def same(one: Sequence[Measured], other: Sequence[Measured], atol: float = 1e-5) -> None:
    """Values to `atol`, all else equal."""
    assert [m.id for m in one] == [m.id for m in other]
    for a, b in zip(one, other, strict=True):
        plain = [without_timings(m.to_dict()) for m in (a, b)]
        curves = [[r.pop("curve") for r in part["readings"]] for part in plain]
        assert plain[0] == plain[1]
        for x, y in zip(*curves, strict=True):
            if x is None or y is None:
                assert x is y
                continue
            for name in ("values", "log_prob_true", "log_prob_false"):
                left, right = (np.array(c.pop(name), dtype=np.float64) for c in (x, y))
                np.testing.assert_allclose(left, right, rtol=0, atol=atol, err_msg=f"{a.id} {name}")
            assert x == y
