import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toca.shapeworld.counter import uniforms


@given(st.integers(0, 2**63), st.lists(st.integers(0, 2**62), min_size=1, max_size=8), st.integers(1, 9))
def test_a_row_depends_on_its_own_index_alone(seed, indices, count):
    together = uniforms(seed, 0, indices, count)
    assert together.shape == (len(indices), count)
    for row, index in zip(together, indices):
        np.testing.assert_array_equal(row, uniforms(seed, 0, [index], count)[0])


def test_more_draws_extend_fewer():
    np.testing.assert_array_equal(uniforms(3, 1, range(5), 9)[:, :4], uniforms(3, 1, range(5), 4))


def test_uniform_and_uncorrelated():
    u = uniforms(0, 0, range(50_000), 6)
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in u.T])
    assert u.min() >= 0 and u.max() < 1
    assert np.abs(counts - 2500).max() < 5 * 2500**0.5
    neighbours = np.corrcoef(np.hstack([u[:-1], u[1:]]).T) - np.eye(12)
    assert np.abs(neighbours).max() < 5 / 50_000**0.5


def test_seeds_and_streams_are_unrelated():
    draws = [uniforms(seed, stream, range(2000), 1)[:, 0] for seed in (0, 1) for stream in (0, 1)]
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize("seed, indices", [(-1, [0]), (0, [-1]), (0, [0.5]), (0, [[1]]), (0, 3)])
def test_refuses_what_is_no_counter(seed, indices):
    with pytest.raises(ValueError, match="non-negative integer"):
        uniforms(seed, 0, indices, 1)
