import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toca.shapeworld import SHAPES, Background, Object, Scene, batch, render, single
from toca.shapeworld.render import coverage

AREA = {"circle": math.pi, "square": 2.0, "triangle": 27**0.5 / 4, "cross": 8 * 0.32 * (1 - 0.32**2) ** 0.5 - 4 * 0.32**2}
GREY = Background((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.0)


def close(a, b):
    """Equal but for the last bit of a float that fell on the other side of a rounding edge."""
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=1, max_size=70))
def test_an_image_does_not_depend_on_its_batch(seed, indices):
    images, labels = batch(seed, indices)
    reversed_images, reversed_labels = batch(seed, indices[::-1])
    assert close(images, reversed_images[::-1]) and (labels == reversed_labels[::-1]).all()
    alone, label = batch(seed, indices[-1:])
    assert close(images[-1:], alone) and labels[-1] == label[0]


@pytest.mark.parametrize("size", [16, 32, 48])
def test_batch_is_the_rendering_of_its_scenes(size):
    images, _ = batch(2, range(100), size=size)
    assert images.dtype == np.uint8 and images.shape == (100, size, size, 3)
    assert close(images, np.stack([render(single(2, i), size) for i in range(100)]))


def test_labels_given_are_labels_returned():
    wanted = np.arange(100) % 20
    _, labels = batch(0, range(100), wanted)
    assert labels.dtype == np.int64 and (labels == wanted).all()


def test_an_empty_batch_is_empty():
    images, labels = batch(0, [])
    assert images.shape == (0, 32, 32, 3) and labels.shape == (0,)


@pytest.mark.parametrize("labels", [[20], [-1], [0, 1], [0.5], 3])
def test_batch_refuses_wrong_labels(labels):
    with pytest.raises(ValueError, match=r"labels must be 1 integers in 0\.\.19"):
        batch(0, [0], labels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.3, 2.0])
def test_coverage_sums_to_the_area_of_the_shape(shape, angle):
    placement = [np.array([value]) for value in (0.52, 0.47, 0.3, angle)]
    for size, tolerance in ((32, 0.02), (256, 0.002)):
        assert coverage(shape, placement, size).mean() == pytest.approx(AREA[shape] * 0.3**2, rel=tolerance)


@pytest.mark.parametrize("shape, turns", list(zip(SHAPES, (7, 4, 3, 4))))
def test_coverage_has_the_symmetry_of_the_shape_and_fills_its_circle(shape, turns):
    first, turned = coverage(shape, [np.full(2, 0.5), np.full(2, 0.5), np.full(2, 0.4), np.array([0.2, 0.2 + math.tau / turns])], 64)
    np.testing.assert_allclose(first, turned, atol=1e-3)
    rows, columns = np.nonzero(first > 0.5)
    assert np.hypot(rows + 0.5 - 32, columns + 0.5 - 32).max() / 64 == pytest.approx(0.4, abs=0.02)


def test_a_small_picture_is_the_average_of_a_large_one():
    large = np.stack([render(single(5, i), 128) for i in range(50)]).astype(float)
    small = np.stack([render(single(5, i), 32) for i in range(50)])
    averaged = large.reshape(50, 32, 4, 32, 4, 3).mean(axis=(2, 4))
    assert np.abs(averaged - small).mean() < 0.5 and np.abs(averaged - small).max() < 64


def test_later_objects_cover_earlier_ones():
    below = Object("square", "red", 0.5, 0.5, 0.4, 0.0)
    above = dataclasses.replace(below, colour="blue", radius=0.2)
    picture = render(Scene(GREY, (below, above)))
    assert picture[16, 16].argmax() == 2 and picture[16, 9].argmax() == 0 and np.ptp(picture[0, 0]) == 0


def test_the_distribution_that_the_embedded_model_learned_stays():
    images, labels = batch(0, range(2000))
    assert labels[:8].tolist() == [3, 7, 1, 3, 0, 1, 11, 13]
    np.testing.assert_allclose(images[:8].mean(axis=(1, 2, 3)), [123.45, 165.93, 132.56, 107.4, 134.56, 101.4, 160.17, 182.15], atol=0.02)
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), [118.96, 111.98, 113.72], atol=0.02)
