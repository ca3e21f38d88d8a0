"""Progress, dense rewards and weights."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward.errors import ConfigError, CurveError
from topreward.rewards import advantage_weights, advantages, dense_rewards, exponential_weights, progress


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
    weights = advantage_weights([0.0, 0.5, 0.25], beta=0.5)
    assert weights.beta == 0.5
    np.testing.assert_allclose(weights.values[1:], np.exp([1.0, -0.5]))
    np.testing.assert_array_equal(np.asarray(weights), weights.values)
    assert np.asarray(weights, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="beta is 0"):
        advantage_weights([0.0, 1.0], beta=0)


def test_the_default_beta_is_the_spread_of_the_advantages() -> None:
    gains = np.array([0.1, 0.3, 0.0, 0.2])
    weights = advantage_weights(np.concatenate([[0.0], np.cumsum(gains)]))
    assert weights.beta == pytest.approx(np.std(gains))
    np.testing.assert_allclose(weights.values[1:], np.exp(gains / np.std(gains)))
    same = advantage_weights([0.0, 0.25, 0.5])  # the same gain everywhere: nothing to weigh
    assert np.isnan(same.beta)
    np.testing.assert_array_equal(same.values, [np.nan, 1.0, 1.0])


def test_weights_that_hardly_differ_are_told() -> None:
    values = np.linspace(0, 1, 15) ** 2
    with pytest.warns(UserWarning, match="nearly plain cloning"):
        advantage_weights(values, beta=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advantage_weights(values)
        advantage_weights(values, beta=0.05)


@pytest.mark.parametrize("beta", [None, 1e-4, 0.05, 3.0])
def test_normalised_weights_have_mean_1_and_never_overflow(beta: float | None) -> None:
    gains = np.array([0.5, np.nan, -0.25, 0.0])
    weights = exponential_weights(gains, beta=beta, normalise=True)
    assert np.isnan(weights.values).tolist() == [False, True, False, False]
    assert np.nanmean(weights.values) == pytest.approx(1.0)
    expected = np.exp((gains - 0.5) / weights.beta)
    np.testing.assert_allclose(weights.values, expected / np.nanmean(expected))
    assert np.isnan(exponential_weights([np.nan], beta=beta, normalise=True).values).all()


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


NO_NUMBERS: list[Any] = [float("nan"), 0, -1.0, float("-inf"), "2", True]


@pytest.mark.parametrize("wrong", NO_NUMBERS)
@pytest.mark.parametrize("name", ["tau", "maximum", "beta"])
def test_parameters_that_make_no_sense(name: str, wrong: Any) -> None:
    use: Any = advantage_weights if name == "beta" else dense_rewards
    with pytest.raises(ConfigError, match=f"{name} is "):
        use([0.0, 0.5], **{name: wrong})


def test_what_is_infinite() -> None:
    assert dense_rewards([0.0, 1.0], tau=100, maximum=np.inf)[1] == pytest.approx(100 * np.e)
    for name, use in (("tau", dense_rewards), ("beta", advantage_weights)):
        with pytest.raises(ConfigError, match=f"{name} is inf"):
            use([0.0, 1.0], **{name: np.inf})  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"beta is 0.0001: the weight of an advantage of 1 is beyond"):
        advantage_weights([0.0, 1.0], beta=1e-4)
    assert np.isnan(progress([-np.inf, 0.0, 1.0])).all()
    assert np.isnan(progress([-np.inf, np.inf])).all()
    np.testing.assert_allclose(progress([-1.7e308, 0.0, 1.7e308]), [0.0, 0.5, 1.0])
    assert np.isnan(advantages([-np.inf, -np.inf])).all()


def test_what_is_no_number() -> None:
    for use in (progress, dense_rewards, advantage_weights, advantages):
        with pytest.raises(CurveError, match="no numbers"):
            use(["a", "b"])
