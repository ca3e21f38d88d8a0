"""Every signal against a few independent lines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward.labels import signals
from topreward.labels.anchors import OWN_FROM, anchors_of

TIMES = np.arange(10) / 10


def test_spread_is_linear_in_time_and_holds_beyond_both_ends() -> None:
    got = signals.spread([1.0, 3.0, 2.0], np.array([2, 6, 8]), TIMES)
    np.testing.assert_allclose(got, [1, 1, 1, 1.5, 2, 2.5, 3, 2.5, 2, 2])


def test_spread_follows_uneven_times() -> None:
    times = np.array([0.0, 1.0, 4.0, 5.0])
    np.testing.assert_allclose(signals.spread([0.0, 1.0], np.array([0, 3]), times), [0, 0.2, 0.8, 1])


def test_causal_spread_knows_nothing_of_later() -> None:
    got = signals.spread([1.0, 3.0, 2.0], np.array([2, 6, 8]), TIMES, causal=True)
    np.testing.assert_array_equal(got, [np.nan, np.nan, 1, 1, 1, 1, 3, 3, 2, 2])
    # Whatever comes later, what was said stays as it was.
    other = signals.spread([1.0, -9.0, 7.0], np.array([2, 6, 8]), TIMES, causal=True)
    np.testing.assert_array_equal(got[:6], other[:6])


def test_step_rewards_are_held_over_the_frames_of_their_step() -> None:
    values, scored = np.array([-4.0, -2.0, -3.0]), np.array([2, 5, 8])
    got = signals.step_rewards(values, scored, 10)
    s = (values + 4) / 2  # min-max of these
    first, second = (min(2 * np.exp(s[k] - s[k - 1]), 2) for k in (1, 2))
    np.testing.assert_allclose(got, [*[np.nan] * 3, *[first] * 3, *[second] * 3, np.nan])


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.integers(1, 40),
    st.sampled_from([None, 30, 200]),
)
def test_advantages_are_those_of_recap(values: list[float], horizon: int, longest: int | None) -> None:
    got = signals.horizon_advantages(values, horizon, longest=longest)
    for t, value in enumerate(values):
        n = min(horizon, len(values) - 1 - t)
        assert got[t] == pytest.approx(values[t + n] - value - (n / longest if longest else 0), abs=1e-12)


def test_an_advantage_looks_ahead() -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        signals.horizon_advantages([0.0, 1.0], 0)


def test_clipped_weights_saturate_as_the_paper_has_it() -> None:
    np.testing.assert_allclose(signals.clipped_weights([0.3, 0.0, -1.0]), [2, 2, 2 / np.e])


def test_rabc_weights_by_hand() -> None:
    gains = np.array([0.5, 0.1, 0.0, -0.2, np.nan])
    over = signals.gains_over(gains)
    mean, std = 0.1, np.std([0.5, 0.1, 0.0, -0.2])
    assert (over.mean, over.std, over.count) == (pytest.approx(mean), pytest.approx(std), 4)
    got = signals.rabc_weights(gains, over, kappa=0.2)
    soft = [(gain - (mean - 2 * std)) / (4 * std + 1e-6) for gain in (0.1, 0.0)]
    np.testing.assert_allclose(got, [1, *soft, 0, 1], atol=1e-6)


def test_no_gain_at_all_has_lerobots_defaults() -> None:
    over = signals.gains_over(np.array([np.nan]))
    assert (over.mean, over.std, over.count) == (0.0, 1e-6, 0)
    assert np.isnan(over.raw_mean)
    assert signals.suggested_kappa(over) is None
    assert signals.suggested_kappa(signals.gains_over(np.array([-0.1, -0.2]))) is None


def test_the_suggested_kappa_is_lerobots_for_the_episodes_it_is_made_for() -> None:
    p = np.arange(2700) / 2699
    gains = signals.horizon_advantages(p, 50)
    assert signals.suggested_kappa(signals.gains_over(gains[:-50])) == pytest.approx(0.01)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_share_is_positive(share: float) -> None:
    values = np.append(np.random.default_rng(0).normal(size=1000), np.nan)
    threshold = signals.positive_threshold(values, share)
    assert np.mean(values[:-1] >= threshold) == pytest.approx(share, abs=0.002)
    assert np.isnan(signals.positive_threshold(np.array([np.nan]), share))


def test_drop_and_stall() -> None:
    values = np.array([0.0, 0.5, 0.6, 0.605, 0.1, 0.6, 0.619, 0.9, 0.91, 0.8])
    assert signals.largest_drop(values) == pytest.approx(0.505)
    # From .6 at 0.2 s to .619 at 0.6 s: less than .02 more, although it fell in between.
    assert signals.longest_stall(values, TIMES) == pytest.approx(0.4)
    brute = max(
        TIMES[j] - TIMES[i]
        for i in range(10)
        for j in range(i, 10)
        if values[: j + 1].max() - values[: i + 1].max() < 0.02
    )
    assert signals.longest_stall(values, TIMES) == pytest.approx(brute)
    assert np.isnan(signals.longest_stall(np.array([0.0, np.nan]), TIMES[:2]))
    assert signals.longest_stall(np.zeros(4), TIMES[:4]) == pytest.approx(0.3)


def test_anchors_are_quantiles_of_firsts_and_lasts() -> None:
    rng = np.random.default_rng(1)
    mine = [("a", float(f), float(last)) for f, last in rng.normal([-5, 0], size=(OWN_FROM, 2))]
    few = [("b", -9.0, -8.0), ("c", float("nan"), -1.0)]
    found = anchors_of([*mine, *few])
    assert (found["a"].over, found["a"].episodes) == ("instruction", OWN_FROM)
    assert found["a"].low == pytest.approx(np.quantile([f for _, f, _ in mine], 0.05))
    assert found["a"].high == pytest.approx(np.quantile([last for _, _, last in mine], 0.95))
    assert found["b"] == found["c"]
    assert (found["b"].over, found["b"].episodes) == ("all", OWN_FROM + 1)  # not the one that is undefined
    assert found["b"].low == pytest.approx(np.quantile([f for _, f, _ in [*mine, few[0]]], 0.05))


def test_anchored_progress_is_clipped_and_undefined_without_a_scale() -> None:
    anchor = anchors_of([("a", -4.0, -1.0)])["a"]
    np.testing.assert_allclose(anchor.progress([-5.0, -4.0, -2.5, -1.0, 0.0, np.nan]), [0, 0, 0.5, 1, 1, np.nan])
    for ends in ([("a", -1.0, -4.0)], [("a", -1.0, -1.0)], [("a", float("nan"), 0.0)]):
        flat = anchors_of(ends)["a"]
        assert not flat.defined
        assert np.isnan(flat.progress([-2.0, -1.0])).all()
