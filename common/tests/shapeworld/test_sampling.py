import numpy as np

from toca.shapeworld import CLASSES, single
from toca.shapeworld.counter import uniforms
from toca.shapeworld.render import paint_backgrounds
from toca.shapeworld.sampling import draw_backgrounds, draw_singles


def test_objects_lie_inside_and_have_the_stated_size():
    _, objects = draw_singles(0, range(5000), None)
    assert 2 * objects.radius.min() > 0.37 and 2 * objects.radius.max() < 0.66
    for centre in (objects.cx, objects.cy):
        assert (centre > objects.radius).all() and (centre < 1 - objects.radius).all()


def test_classes_are_equally_likely():
    _, objects = draw_singles(1, range(20_000), None)
    counts = np.bincount(objects.label, minlength=len(CLASSES))
    assert np.abs(counts - 1000).max() < 5 * 1000**0.5


def test_backgrounds_are_greyish_and_within_range():
    pictures = paint_backgrounds(draw_backgrounds(uniforms(0, 9, range(2000), 20)), 16)
    assert np.ptp(pictures, axis=-1).max() < 0.25
    assert pictures.min() > -0.05 and pictures.max() < 0.9


def test_a_given_label_leaves_the_rest_of_the_scene():
    free, forced = single(4, 7), single(4, 7, label=3)
    first, second = free.objects[0], forced.objects[0]
    assert (second.shape, second.colour) == CLASSES[3]
    assert free.background == forced.background
    assert (first.cx, first.cy, first.radius, first.tint) == (second.cx, second.cy, second.radius, second.tint)
