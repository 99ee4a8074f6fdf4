import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toca.shapeworld.regions import blobs, chroma, components, grow, hue
from toca.shapeworld.scene import PALETTE


def flood(kind):
    """Regions by a plain flood fill, each pixel with the largest flat index of its region."""
    number = np.full(kind.shape, -1)
    for start in np.ndindex(kind.shape):
        region, queue = {start}, [start]
        while queue and number[start] < 0:
            y, x = queue.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                inside = 0 <= near[0] < kind.shape[0] and 0 <= near[1] < kind.shape[1]
                if inside and near not in region and kind[near] == kind[start]:
                    region.add(near)
                    queue.append(near)
        if number[start] < 0:
            for pixel in region:
                number[pixel] = max(y * kind.shape[1] + x for y, x in region)
    return number


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_components_equal_a_flood_fill(seed, height, width, kinds):
    kind = np.random.default_rng(seed).integers(0, kinds, (height, width))
    np.testing.assert_array_equal(components(kind), flood(kind))


def test_components_follow_a_spiral():
    spiral = np.zeros((9, 9), int)
    spiral[0, :], spiral[:, 8], spiral[8, :], spiral[2:, 0], spiral[2, :7], spiral[2:7, 6] = 1, 1, 1, 1, 1, 1
    assert len(np.unique(components(spiral)[spiral == 1])) == 1


def test_hue_names_the_palette_in_any_light():
    colours = np.array(list(PALETTE.values()), np.float32)
    for light in (colours, 0.5 * colours, 0.5 * colours + 0.4):
        index, cosine = hue(chroma(light))
        assert index.tolist() == [0, 1, 2, 3, 4]
        np.testing.assert_allclose(cosine, 1, atol=1e-5)


def test_blobs_split_touching_colours_and_drop_specks():
    picture = np.zeros((16, 16, 3), np.float32)
    picture[4:9, 2:7], picture[4:9, 7:12], picture[14, 14] = PALETTE["red"], PALETTE["blue"], PALETTE["green"]
    assert sorted(mask.sum() for mask in blobs(chroma(picture), 5)) == [25, 25]


def test_grow_adds_the_eight_neighbours():
    mask = np.zeros((5, 6), bool)
    mask[2, 2] = mask[0, 5] = True
    assert grow(mask).sum() == 9 + 4 and grow(mask)[1:4, 1:4].all()
