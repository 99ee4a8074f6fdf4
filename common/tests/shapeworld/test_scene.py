import pytest

from toca.shapeworld import CLASSES, COLOURS, SHAPES, Object, class_name


def test_twenty_classes_in_a_fixed_order():
    assert SHAPES == ("circle", "square", "triangle", "cross")
    assert COLOURS == ("red", "green", "blue", "yellow", "magenta")
    assert [class_name(label) for label in (0, 6, 19)] == ["red circle", "green square", "magenta cross"]
    assert len(set(CLASSES)) == 20


@pytest.mark.parametrize("label", [-1, 20])
def test_class_name_refuses_other_labels(label):
    with pytest.raises(ValueError, match=r"0\.\.19"):
        class_name(label)


@pytest.mark.parametrize("shape, colour", [("star", "red"), ("circle", "mauve")])
def test_an_object_refuses_unknown_words(shape, colour):
    with pytest.raises(ValueError, match="choose from"):
        Object(shape, colour, 0.5, 0.5, 0.2, 0.0)
