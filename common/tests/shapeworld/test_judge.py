import dataclasses

import numpy as np
import pytest

from toca.shapeworld import (
    CLASSES,
    KINDS,
    SHAPES,
    Background,
    Caption,
    Object,
    Scene,
    agrees,
    batch,
    classify,
    describe,
    judge,
    render,
    single,
)
from toca.shapeworld.counter import uniforms
from toca.shapeworld.render import paint_backgrounds
from toca.shapeworld.sampling import draw_backgrounds

GREY = Background((0.5, 0.5, 0.5), (0.4, 0.4, 0.4), 1.0)
EMPTY = paint_backgrounds(draw_backgrounds(uniforms(0, 9, range(300), 20)), 32) * 255
GRID = (np.arange(32) + 0.5) / 32


def pixels(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def noise(shape, sigma, seed=0):
    return np.random.default_rng(seed).normal(0, sigma * 255, shape)


def blur(images, sigma):
    taps = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    for axis in (1, 2):
        width = [(3, 3) if a == axis else (0, 0) for a in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(np.asarray(images, float), width, mode="edge"), 7, axis=axis)
        images = windows @ (taps / taps.sum())
    return images


def paint(mask, rgb, rows=slice(0, 1)):
    """Backgrounds under a flat colour where `mask` (32, 32) is set."""
    return pixels(np.where(mask[..., None], np.array(rgb) * 255, EMPTY[rows]))


@pytest.mark.parametrize("size, count", [(32, 2000), (64, 600)])
def test_exact_on_rendered_scenes(size, count):
    images, labels = batch(11, range(count), np.arange(count) % 20, size=size)
    np.testing.assert_array_equal(classify(images), labels)


DAMAGE = {
    "noise": lambda x: x + noise(x.shape, 0.05),
    "blur": lambda x: blur(x, 0.7),
    "contrast": lambda x: 127.5 + 0.8 * (x - 127.5),
    "shift": lambda x: x + np.random.default_rng(0).uniform(-15, 15, (len(x), 1, 1, 3)),
    "all": lambda x: 127.5 + 0.8 * (blur(x, 0.6) - 127.5) + [8, -8, 4] + noise(x.shape, 0.05),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_robust_on_damaged_scenes(damage):
    images, labels = batch(12, range(400))
    answers = classify(pixels(damage(images)))
    assert np.isin(answers[answers != labels], -1).all()
    assert (answers == labels).mean() >= 0.99


@pytest.mark.parametrize("size", [32, 64])
def test_measures_place_and_size(size):
    for index in range(200):
        scene = single(13, index)
        (found,), (drawn,) = judge(render(scene, size)).objects, scene.objects
        assert found.cx == pytest.approx(drawn.cx, abs=0.2 / size) and found.cy == pytest.approx(drawn.cy, abs=0.2 / size)
        assert found.radius == pytest.approx(drawn.radius, rel=0.08)
        assert 0.8 < found.confidence <= 1


def test_no_object_on_a_background_or_in_noise():
    uniform = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    clouds = blur(np.random.default_rng(1).normal(size=(60, 32, 32, 3)), 2.0)
    for images in (EMPTY, EMPTY + noise(EMPTY.shape, 0.05), uniform, 127 + noise(uniform.shape, 0.3), 127 + 80 * clouds / clouds.std()):
        assert (classify(pixels(images)) == -1).all()


BAR = (abs(GRID - 0.5) < 0.3) & (abs(GRID - 0.5) < 0.12)[:, None]
STEM = (abs(GRID - 0.5) < 0.1) & (abs(GRID - 0.62) < 0.2)[:, None]
DISTANCE = np.hypot(GRID - 0.5, GRID[:, None] - 0.5)
FORMLESS = {
    "bar": BAR,
    "tee": STEM | ((abs(GRID - 0.5) < 0.3) & (abs(GRID - 0.4) < 0.1)[:, None]),
    "ring": (DISTANCE < 0.3) & (DISTANCE > 0.18),
    "oval": np.hypot((GRID - 0.5) / 1.2, 1.2 * (GRID[:, None] - 0.5)) < 0.2,
    "half": (DISTANCE < 0.3) & (GRID < 0.5),
    "speck": DISTANCE < 0.05,
    "all": DISTANCE < 2,
}


@pytest.mark.parametrize("mask", FORMLESS.values(), ids=FORMLESS)
def test_no_object_in_a_patch_without_a_known_shape(mask):
    assert classify(paint(mask, (0.9, 0.1, 0.1))).tolist() == [-1]


def test_no_object_in_a_glow():
    glow = np.exp(-((DISTANCE / 0.2) ** 2))[..., None]
    assert (classify(pixels(EMPTY[:50] * (1 - glow) + glow * [230, 25, 25])) == -1).all()


def test_a_colour_off_the_palette_is_unclear():
    disc = DISTANCE < 0.25
    assert classify(paint(disc, (0.1, 0.8, 0.9))).tolist() == [-1]
    assert judge(paint(disc, (0.1, 0.8, 0.9))[0]).unclear == 1
    assert classify(paint(disc, (0.9, 0.1, 0.1))).tolist() == [0]


def test_two_objects_are_no_class():
    assert (classify(np.stack([render(KINDS["related"](0, i)) for i in range(50)])) == -1).all()


def test_an_object_beside_a_formless_patch_is_found_but_is_no_class():
    picture = render(Scene(GREY, (Object("square", "blue", 0.7, 0.7, 0.2, 0.3),)))
    picture[3:6, 3:20] = (230, 25, 25)
    reading = judge(picture)
    assert [(o.shape, o.colour) for o in reading.objects] == [("square", "blue")] and reading.unclear == 1
    assert classify(picture[None]).tolist() == [-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [32, 64])
def test_reads_every_kind_of_scene(kind, size):
    for index in range(100):
        scene = KINDS[kind](14, index)
        reading = judge(render(scene, size))
        drawn = sorted((o.shape, o.colour) for o in scene.objects)
        assert sorted((o.shape, o.colour) for o in reading.objects) == drawn and reading.unclear == 0
        assert kind == "single" or agrees(scene, reading)


def claim(caption):
    """The same value for "a left of b" and "b right of a"."""
    opposite = {"right of": "left of", "below": "above"}
    return (caption.things[::-1], opposite[caption.where]) if caption.where in opposite else (caption.things, caption.where)


def test_agrees_is_about_this_scene():
    scenes = [KINDS["related"](15, i) for i in range(40)]
    readings = [judge(render(scene)) for scene in scenes]
    table = np.array([[agrees(scene, reading) for reading in readings] for scene in scenes])
    claims = [claim(describe(scene)) for scene in scenes]
    np.testing.assert_array_equal(table, [[one == other for other in claims] for one in claims])
    mirrored = [judge(render(scene)[:, ::-1]) for scene in scenes]
    sideways = [abs(s.objects[0].cx - s.objects[1].cx) > 0.3 for s in scenes]
    assert [not agrees(scene, reading) for scene, reading in zip(scenes, mirrored)] == sideways


def test_agrees_takes_a_caption_and_refuses_an_unclear_reading():
    reading = judge(render(Scene(GREY, (Object("cross", "yellow", 0.25, 0.25, 0.2, 0.3),))))
    assert agrees(Caption((("cross", "yellow"),)), reading)
    assert agrees(Caption((("cross", "yellow"),), "in the upper left"), reading)
    assert not agrees(Caption((("cross", "yellow"),), "on the left"), reading)
    assert not agrees(Caption((("cross", "yellow"),)), dataclasses.replace(reading, unclear=1))


@pytest.mark.parametrize("shape, dtype", [((32, 32), np.uint8), ((32, 16, 3), np.uint8), ((32, 32, 3), float), ((8, 8, 3), np.uint8)])
def test_judge_refuses_what_is_no_picture(shape, dtype):
    with pytest.raises(ValueError, match="square uint8 RGB picture"):
        judge(np.zeros(shape, dtype))


def test_classify_of_nothing_is_empty():
    assert classify(np.empty((0, 32, 32, 3), np.uint8)).shape == (0,)


def test_every_shape_is_told_apart_at_any_angle():
    for shape in SHAPES:
        scenes = [Scene(GREY, (Object(shape, "blue", 0.48, 0.53, 0.2, angle),)) for angle in np.linspace(0, 6.2, 60)]
        assert set(classify(np.stack([render(scene) for scene in scenes]))) == {CLASSES.index((shape, "blue"))}
