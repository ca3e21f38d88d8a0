"""Progress, dense rewards and weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward.rewards import advantage_weights, advantages, dense_rewards, progress


def test_progress_is_min_max() -> None:
    assert progress([-4.0, -2.0, -3.0]).tolist() == [0.0, 1.0, 0.5]


def test_progress_of_a_constant_is_undefined_or_ones() -> None:
    assert np.isnan(progress([3.0, 3.0])).all()
    assert progress([3.0, 3.0], constant="ones").tolist() == [1.0, 1.0]
    assert progress([3.0], constant="ones").tolist() == [1.0]


def test_nan_stays_where_it_is() -> None:
    np.testing.assert_array_equal(progress([0.0, np.nan, 4.0]), [0.0, np.nan, 1.0])
    assert np.isnan(progress([np.nan, np.nan])).all()
    np.testing.assert_array_equal(progress([np.nan, 2.0], constant="ones"), [np.nan, 1.0])


def test_dense_rewards_saturate_as_the_paper_has_it() -> None:
    rewards = dense_rewards([0.0, 0.5, 0.5, 0.0])
    assert np.isnan(rewards[0])
    np.testing.assert_allclose(rewards[1:], [2.0, 2.0, 2 * np.exp(-0.5)])


def test_advantage_weights() -> None:
    np.testing.assert_allclose(advantage_weights([0.0, 0.5, 0.25], beta=0.5)[1:], np.exp([1.0, -0.5]))
    with pytest.raises(ValueError, match="beta is 0"):
        advantage_weights([0.0, 1.0], beta=0)


@given(st.lists(st.floats(-60, 0), min_size=2, max_size=20))
def test_progress_spans_the_unit_interval(values: list[float]) -> None:
    scaled = progress(values)
    if np.isnan(scaled).any():
        assert max(values) == min(values)
    else:
        assert scaled.min() == 0
        assert scaled.max() == 1
        assert np.nansum(advantages(scaled)) == pytest.approx(scaled[-1] - scaled[0])


@pytest.mark.parametrize("bad", [[], [[1.0]]])
def test_shapes_are_checked(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="want"):
        progress(bad)
    with pytest.raises(ValueError, match="want"):
        advantages(bad)
