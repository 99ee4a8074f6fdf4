"""A small GenEval: captions of its six tasks, sampled by a model, read back by `toca.shapeworld.judge`.

Of a picture is asked, in the order of TASKS: one object of the right shape; two objects of the right shapes; the right number of one shape;
one object of the right shape and colour; two objects as the whole caption says, place included; two objects of the right shapes and
colours. A picture with anything more or anything unclear is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from toca import shapeworld
from toca.metrics.geneval import summary, wilson
from toca.runs.seeds import item_seed
from toca.shapeworld import COLOURS, Caption, Reading
from toca.shapeworld.regions import background_chroma, blobs, chroma, hue

BATCH = 25
BLOB = 0.012  # of the picture, the smallest that counts; the smallest object drawn covers 0.02
Aspect = Callable[[Caption, Reading], bool]
Sampler = Callable[[list[str], list[int]], np.ndarray]  # captions, seeds -> pictures (B, H, W, 3) uint8


def shapes_fit(asked: Caption, read: Reading) -> bool:
    return not read.unclear and sorted(shape for shape, _ in asked.things) == sorted(o.shape for o in read.objects)


def things_fit(asked: Caption, read: Reading) -> bool:
    return not read.unclear and sorted(asked.things) == sorted((o.shape, o.colour) for o in read.objects)


def colours_of(picture: np.ndarray) -> list[str]:
    """The colours of all sizeable blobs, sorted, whatever their shapes: what a model learns first."""
    colour = chroma(np.divide(picture, 255, dtype=np.float32))
    colour -= background_chroma(colour)
    masks = blobs(colour, round(BLOB * len(picture) ** 2))
    return sorted(COLOURS[int(hue(np.median(colour[mask], axis=0))[0])] for mask in masks)


TASKS: dict[str, tuple[str, Aspect]] = {  # the scenes that captions come from, and what is asked of the picture
    "single_object": ("single", shapes_fit),
    "two_object": ("related", shapes_fit),
    "counting": ("counted", shapes_fit),
    "colors": ("placed", things_fit),
    "position": ("related", shapeworld.agrees),
    "color_attr": ("related", things_fit),
}


@dataclass(frozen=True)
class Sample:
    """A judged picture.

    correct: whether it shows what its task asks for.
    whole: whether it is all that its caption says.
    coloured: whether it has as many blobs as the caption has things, in their colours.
    """

    tag: str
    caption: Caption
    picture: np.ndarray
    correct: bool
    whole: bool
    coloured: bool

    def line(self) -> dict[str, object]:
        """As a line of GenEval's evaluator."""
        return dict(tag=self.tag, prompt=str(self.caption), correct=self.correct)


def evaluate(sampler: Sampler, images: int, seed: int = 0) -> Iterator[Sample]:
    """`images` samples of every task; caption and seed of a picture depend on `seed`, task and number alone."""
    for task, (tag, (kind, aspect)) in enumerate(TASKS.items()):
        captions = [shapeworld.describe(shapeworld.KINDS[kind](item_seed(seed, task), number)) for number in range(images)]
        seeds = [item_seed(seed, len(TASKS) * number + task) for number in range(images)]
        for first in range(0, images, BATCH):
            some = slice(first, first + BATCH)
            pictures = sampler([str(caption) for caption in captions[some]], seeds[some])
            for caption, picture in zip(captions[some], pictures, strict=True):
                read = shapeworld.judge(picture)
                coloured = colours_of(picture) == sorted(colour for _, colour in caption.things)
                yield Sample(tag, caption, picture, aspect(caption, read), shapeworld.agrees(caption, read), coloured)


def table(samples: Sequence[Sample]) -> str:
    """Accuracy per task with Wilson's 95% intervals, of whole captions, of colours alone, and the tasks' mean."""
    found = summary(sample.line() for sample in samples)
    rows = [(tag, task.correct, task.images) for tag, task in found.tasks.items()]
    rows.append(("whole caption", sum(sample.whole for sample in samples), len(samples)))
    rows.append(("colours alone", sum(sample.coloured for sample in samples), len(samples)))
    return "\n".join([*(_row(*counts) for counts in rows), f"{'overall':14} {found.overall:6.1%}"])


def _row(name: str, correct: int, images: int) -> str:
    low, high = wilson(correct, images)
    return f"{name:14} {correct / images:6.1%} ({low:.1%} to {high:.1%}), {correct} of {images}"


def some_of_each(samples: Iterable[Sample], number: int) -> list[Sample]:
    """The first samples of every task."""
    found: dict[str, list[Sample]] = {tag: [] for tag in TASKS}
    for sample in samples:
        found[sample.tag].append(sample)
    return [sample for some in found.values() for sample in some[:number]]


def sheet(samples: Sequence[Sample], columns: int = 8, scale: int = 3) -> Image.Image:
    """The pictures in rows; what is left of the last row is black."""
    pictures = [sample.picture for sample in samples]
    pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[first : first + columns], axis=1) for first in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows).repeat(scale, 0).repeat(scale, 1))
