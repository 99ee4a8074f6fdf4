import itertools
import math

import numpy as np
import pytest

from toca.shapeworld import COLOURS, KINDS, SHAPES, caption, captioned, render
from toca.shapeworld.captions import PLACES, RELATIONS

SCENES = {kind: [make(3, i) for i in range(600)] for kind, make in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_objects_stay_inside_and_apart(kind):
    for scene in SCENES[kind]:
        for o in scene.objects:
            assert o.radius < min(o.cx, o.cy, 1 - o.cx, 1 - o.cy)
        for a, b in itertools.combinations(scene.objects, 2):
            assert math.hypot(a.cx - b.cx, a.cy - b.cy) > a.radius + b.radius + 0.04


@pytest.mark.parametrize(
    "kind, phrases",
    [
        ("placed", [f"{o} {p}" for o in ("circle", "cross") for p in PLACES.values()]),
        ("related", [f"{s} {r} a {c}" for s in SHAPES for r in RELATIONS for c in COLOURS]),
        ("counted", [f"{n} {c} {s}" for n in ("two", "three", "four") for c in COLOURS for s in ("circles", "crosses")]),
    ],
)
def test_every_phrase_occurs(kind, phrases):
    said = "\n".join(caption(scene) for scene in SCENES[kind])
    assert [phrase for phrase in phrases if phrase not in said] == []


def test_captioned_depends_on_the_index_alone():
    images, captions = captioned(5, range(40))
    assert images.shape == (40, 32, 32, 3) and len(set(captions)) > 20
    later, words = captioned(5, range(39, 19, -1))
    np.testing.assert_array_equal(images[20:], later[::-1])
    assert captions[20:] == words[::-1]


def test_captioned_renders_the_kind_asked_for():
    images, captions = captioned(5, [7], size=64, kinds=("counted",))
    scene = KINDS["counted"](5, 7)
    np.testing.assert_array_equal(images[0], render(scene, 64))
    assert captions == [caption(scene)]


@pytest.mark.parametrize("kinds", [(), ("counted", "stacked")])
def test_captioned_refuses_unknown_kinds(kinds):
    with pytest.raises(ValueError, match="choose from"):
        captioned(0, [0], kinds=kinds)
