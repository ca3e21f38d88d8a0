"""VOC, tau and intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward.errors import ConfigError, CurveError
from topreward.metrics import (
    best_threshold,
    bootstrap_difference,
    bootstrap_mean,
    kendall_tau,
    reliability,
    roc_auc,
    slope,
    voc,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4], 1.0),
        ([4, 3, 2, 1], -1.0),
        ([1, 3, 2, 4], 0.8),
        ([1, 1, 2, 2], 2 / math.sqrt(5)),  # ties share their average rank
        ([0.0, 100.0, 1e9], 1.0),
    ],
)
def test_voc(values: list[float], expected: float) -> None:
    assert voc(values) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [1], [2, 2, 2], [1, 2, float("nan")]])
def test_undefined_is_nan(values: list[float]) -> None:
    assert math.isnan(voc(values))
    assert math.isnan(kendall_tau(values))


def test_kendall_tau_counts_pairs() -> None:
    assert kendall_tau([1, 3, 2, 4]) == pytest.approx(4 / 6)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=30))
def test_only_the_order_counts(values: list[int]) -> None:
    array = np.array(values, dtype=float)
    a, b = voc(array), voc(np.exp(array / 10))
    assert (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b)
    if not math.isnan(a):
        assert voc(array[::-1]) == pytest.approx(-a)
        assert -1 <= kendall_tau(array) <= 1


def test_bootstrap_covers_and_counts() -> None:
    interval = bootstrap_mean([0.1, 0.2, np.nan, 0.3, 0.4])
    assert interval.mean == pytest.approx(0.25)
    assert interval.low < 0.25 < interval.high
    assert (interval.count, interval.undefined) == (4, 1)
    assert interval == bootstrap_mean([0.1, 0.2, np.nan, 0.3, 0.4])
    assert "undefined 1" in str(interval)


def test_bootstrap_of_little() -> None:
    assert math.isnan(bootstrap_mean([np.nan]).mean)
    one = bootstrap_mean([0.5])
    assert one.mean == 0.5
    assert math.isnan(one.low)


def test_bootstrap_width_is_the_textbooks() -> None:
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap_mean(values)
    width = 2 * 1.96 * values.std() / math.sqrt(400)
    assert interval.high - interval.low == pytest.approx(width, rel=0.05)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), want \(K,\)"):
        voc([[1, 2], [3, 4]])


WRONG: list[tuple[str, Any]] = [
    *[("confidence", x) for x in (0, 1, -1.0, 95, float("nan"), None, "0.9")],
    *[("resamples", x) for x in (0, -1, 1.5, None, True, "9")],
    *[("seed", x) for x in (-1, 1.5, None, "0")],
]


@pytest.mark.parametrize(("name", "wrong"), WRONG)
def test_parameters_of_intervals_that_make_no_sense(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is"):
        bootstrap_mean([1.0, 2.0], **{name: wrong})
    with pytest.raises(ConfigError, match=f"{name} is"):
        bootstrap_difference([1.0, 2.0], [0.0, 1.0], **{name: wrong})


@pytest.mark.parametrize("bins", [0, -1, 2.5, None, True])
def test_bins_that_make_no_sense(bins: Any) -> None:
    with pytest.raises(ConfigError, match="bins is"):
        reliability([0.5, 0.5], [True, False], bins=bins)


@pytest.mark.parametrize("labels", [[1.0, np.nan], ["true", "false"], [None, True], [0, 2]])
def test_labels_that_are_no_truth(labels: Any) -> None:
    for use in (roc_auc, best_threshold, reliability):
        with pytest.raises(CurveError, match="labels are"):
            use([0.5, 0.6], labels)
    assert roc_auc([0.5, 0.6], [0, 1]) == roc_auc([0.5, 0.6], [False, True]) == 1.0


def test_values_that_are_no_numbers() -> None:
    for use in (voc, kendall_tau, bootstrap_mean):
        with pytest.raises(CurveError, match="no numbers"):
            use(["a", "b"])
    with pytest.raises(CurveError, match="shape"):
        bootstrap_mean([[1.0, 2.0]])
    assert np.isnan(slope([0.0, np.inf], [0.0, 1.0]))
    assert np.isnan(slope([0.0, 1.0], [0.0, np.inf]))
