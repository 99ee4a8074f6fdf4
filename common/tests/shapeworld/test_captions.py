import pytest

from toca.shapeworld import Background, Caption, Object, Scene, caption, describe
from toca.shapeworld.captions import PLACES, RELATIONS, holds, matches, place

GREY = Background((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.0)


def thing(shape, colour, cx=0.5, cy=0.5):
    return Object(shape, colour, cx, cy, 0.1, 0.0)


@pytest.mark.parametrize(
    "objects, words",
    [
        ([thing("cross", "yellow", 0.2, 0.3)], "a yellow cross in the upper left"),
        ([thing("circle", "red", 0.5, 0.9)], "a red circle at the bottom"),
        ([thing("circle", "red", 0.2), thing("square", "blue", 0.8)], "a red circle left of a blue square"),
        ([thing("circle", "red", 0.5, 0.8), thing("circle", "blue", 0.4, 0.2)], "a red circle below a blue circle"),
        ([thing("triangle", "green")] * 3, "three green triangles"),
        ([thing("cross", "magenta")] * 2, "two magenta crosses"),
    ],
)
def test_caption(objects, words):
    assert caption(Scene(GREY, tuple(objects))) == words


def test_a_caption_may_leave_the_place_open():
    assert str(Caption((("circle", "red"),))) == "a red circle"


@pytest.mark.parametrize("objects", [(), [thing("circle", "red")] * 5, [thing("circle", c) for c in ("red", "blue", "green")]])
def test_describe_refuses_what_it_has_no_words_for(objects):
    with pytest.raises(ValueError, match="no caption fits"):
        describe(Scene(GREY, tuple(objects)))


def test_nine_places():
    at = (0.2, 0.5, 0.8)
    assert [place(thing("circle", "red", x, y)) for y in at for x in at] == list(PLACES.values())


def test_opposite_relations_exclude_each_other_and_swap():
    first, second = thing("circle", "red", 0.2, 0.4), thing("square", "red", 0.8, 0.6)
    for one, other in (("left of", "right of"), ("above", "below")):
        for a, b in ((first, second), (second, first)):
            assert holds(one, a, b) == holds(other, b, a)
            assert not (holds(one, a, b) and holds(other, a, b))
    assert [name for name in RELATIONS if holds(name, first, second)] == ["left of"]


def test_a_diagonal_pair_bears_out_two_relations():
    first, second = thing("circle", "red", 0.3, 0.3), thing("square", "red", 0.7, 0.7)
    assert [name for name in RELATIONS if holds(name, first, second)] == ["left of", "above"]


def test_matches_wants_the_same_objects_in_the_same_relation():
    circle, square = thing("circle", "red", 0.2), thing("square", "blue", 0.8)
    wanted = describe(Scene(GREY, (circle, square)))
    assert matches(wanted, (circle, square)) and matches(wanted, (square, circle))
    assert not matches(wanted, (circle,))
    assert not matches(wanted, (circle, square, square))
    assert not matches(wanted, (thing("circle", "blue", 0.2), square))
    assert not matches(wanted, (thing("circle", "red", 0.8), thing("square", "blue", 0.2)))
