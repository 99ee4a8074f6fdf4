from __future__ import annotations

import numpy as np

from toca.shapeworld import KINDS, Caption, Found, Reading, render
from toca.training.judging import TASKS, colours_of, evaluate, sheet, some_of_each, table


def painter(per_task: int):
    """A sampler that draws the scenes themselves, in the order in which it is asked."""
    from toca.runs.seeds import item_seed

    scenes = [KINDS[kind](item_seed(0, task), i) for task, (kind, _) in enumerate(TASKS.values()) for i in range(per_task)]
    return lambda captions, seeds: np.stack([render(scenes.pop(0)) for _ in captions])


def test_true_pictures_are_right() -> None:
    samples = list(evaluate(painter(30), 30))
    assert len(samples) == 180 and all(sample.correct and sample.whole and sample.coloured for sample in samples)
    assert "overall        100.0%" in table(samples) and "position       100.0% (88.6% to 100.0%), 30 of 30" in table(samples)


def test_seeds_differ_and_do_not_depend_on_the_number_of_pictures() -> None:
    def asked(images: int) -> dict[int, str]:
        seen: dict[int, str] = {}

        def sampler(captions: list[str], seeds: list[int]) -> np.ndarray:
            seen.update(zip(seeds, captions))
            return np.zeros((len(captions), 32, 32, 3), np.uint8)

        assert not any(sample.correct for sample in evaluate(sampler, images))
        return seen

    few, many = asked(3), asked(26)
    assert len(many) == 26 * len(TASKS) and few.items() <= many.items()


def test_aspects_ask_for_less_than_the_caption() -> None:
    asked = Caption((("circle", "red"), ("square", "blue")), "left of")

    def found(*objects: tuple[str, str, float], unclear: int = 0) -> Reading:
        return Reading(tuple(Found(shape, colour, x, 0.5, 0.2, 1.0) for shape, colour, x in objects), unclear)

    right = found(("circle", "red", 0.2), ("square", "blue", 0.8))
    swapped = found(("circle", "blue", 0.2), ("square", "red", 0.8))
    mirrored = found(("square", "blue", 0.2), ("circle", "red", 0.8))
    lone = found(("circle", "red", 0.2))
    unclear = found(("circle", "red", 0.2), ("square", "blue", 0.8), unclear=1)
    aspects = [TASKS[tag][1] for tag in ("two_object", "color_attr", "position")]
    read = [[aspect(asked, reading) for aspect in aspects] for reading in (right, swapped, mirrored, lone, unclear)]
    assert read == [[True] * 3, [True, False, False], [True, True, False], [False] * 3, [False] * 3]


def test_colours_are_read_whatever_the_shapes() -> None:
    picture = np.full((32, 32, 3), 120, np.uint8)
    assert colours_of(picture) == []
    picture[2:6, 3:20], picture[20:25, 5:9], picture[30, 30] = (230, 25, 25), (25, 190, 40), (25, 190, 40)  # the last is too small
    assert colours_of(picture) == ["green", "red"]


def test_a_sheet_holds_some_of_each() -> None:
    some = some_of_each(evaluate(painter(3), 3), 2)
    assert [sample.tag for sample in some] == [tag for tag in TASKS for _ in range(2)]
    assert sheet(some, columns=5, scale=2).size == (5 * 64, 3 * 64)
