from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toca.metrics.frechet import Gaussian, Moments, frechet_distance, inception_score, precision_recall


def diagonal(mean: float, variances: list[float]) -> Gaussian:
    return Gaussian(np.full(len(variances), mean), np.diag(variances))


def test_the_distance_of_known_gaussians() -> None:
    """For commuting covariances it is |m1 - m2|^2 + sum (sqrt v1 - sqrt v2)^2."""
    assert frechet_distance(diagonal(0, [1, 4, 9]), diagonal(2, [4, 4, 1])) == pytest.approx(3 * 4 + 1 + 0 + 4)
    assert frechet_distance(diagonal(1, [2, 3]), diagonal(1, [2, 3])) == pytest.approx(0, abs=1e-12)


def test_covariances_may_be_singular() -> None:
    assert frechet_distance(diagonal(0, [1, 0]), diagonal(0, [0, 1])) == pytest.approx(2)


def test_a_rotation_changes_nothing_and_the_order_neither() -> None:
    generator = np.random.default_rng(0)
    turn, _ = np.linalg.qr(generator.normal(size=(5, 5)))
    a, b = (x @ x.T for x in generator.normal(size=(2, 5, 5)))
    first, second = Gaussian(np.zeros(5), a), Gaussian(np.ones(5), b)
    turned = (Gaussian(turn @ g.mean, turn @ g.covariance @ turn.T) for g in (first, second))
    assert frechet_distance(*turned) == pytest.approx(frechet_distance(first, second))
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 2**31))
def test_moments_of_batches_are_numpys(sizes: list[int], seed: int) -> None:
    features = np.random.default_rng(seed).normal(1e4, 1.0, (sum(sizes) + 2, 3))
    moments = Moments()
    for some in np.split(features, np.cumsum(sizes)):
        moments.add(torch.from_numpy(some))
    gaussian = moments.gaussian()
    assert moments.count == len(features)
    np.testing.assert_allclose(gaussian.mean, features.mean(axis=0))
    np.testing.assert_allclose(gaussian.covariance, np.cov(features, rowvar=False), atol=1e-8)


def test_statistics_that_cannot_be() -> None:
    moments = Moments()
    moments.add(torch.ones(1, 2))
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        moments.gaussian()
    with pytest.raises(ValueError, match="not finite"):
        Gaussian(np.zeros(2), np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3, 3\)"):
        Gaussian(np.zeros(2), np.eye(3))
    with pytest.raises(ValueError, match="got 2 and 3 numbers"):
        frechet_distance(diagonal(0, [1, 1]), diagonal(0, [1, 1, 1]))


def test_inception_scores_of_sure_and_of_clueless_answers() -> None:
    assert inception_score(torch.eye(10).repeat(7, 1)) == pytest.approx(10)  # every class, each time surely
    assert inception_score(torch.full((50, 10), 0.1)) == pytest.approx(1)
    assert inception_score(torch.eye(10)[:1].repeat(5, 1)) == pytest.approx(1)


def test_an_inception_score_is_the_mean_over_runs() -> None:
    halves = torch.cat([torch.eye(4).repeat(2, 1), torch.full((8, 4), 0.25)])
    assert inception_score(halves, split=8) == pytest.approx((4 + 1) / 2)


def test_precision_and_recall_of_known_mixtures() -> None:
    """The samples hold one of two far clusters of the reference, and as many pictures of nothing."""
    generator = torch.Generator().manual_seed(0)
    near, far, nothing = (torch.randn(400, 8, generator=generator) + place for place in (0, 100, -100))
    precision, recall = precision_recall(torch.cat([near, far]), torch.cat([torch.randn(400, 8, generator=generator), nothing]))
    assert 0.4 < precision < 0.5  # nearly all of the half that is of a known kind
    assert 0.4 < recall < 0.5
    assert precision_recall(near, near) == (1, 1)
    with pytest.raises(ValueError, match="more than 3 pictures on each side, got 3 and 400"):
        precision_recall(near, near[:3])


def test_a_ball_reaches_the_kth_neighbour() -> None:
    line = torch.arange(5.0)[:, None]
    probe = torch.tensor([[-3.0], [-3.1], [7.0], [7.1]])
    assert precision_recall(line, torch.cat([probe, probe + 1000]))[0] == 2 / 8  # -3 and 7 are 3 away from an end
