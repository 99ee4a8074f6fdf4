"""Judge flux-mini as GenEval judges: captions of six tasks, sampled by FLUX's own sampler, read back by `toca.shapeworld.judge`.

    python -m flux.evaluate_mini --weights DIR --images 50

One object of the right shape; two objects of the right shapes; the right number of one shape; one object of the right shape and colour; two
objects as the whole caption says, place included; two objects of the right shapes and colours. A picture with anything unclear is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flux import mini
from flux.model import Flux
from flux.modules.conditioner import HFEmbedder
from flux.sampling import denoise, get_schedule, prepare, unpack
from toca import shapeworld
from toca.cli.flags import Parser, number, whole
from toca.methods import Method
from toca.metrics.geneval import summary, wilson
from toca.runs.pictures import to_uint8
from toca.runs.programs import device_from, program_errors
from toca.runs.seeds import item_generators, item_seed
from toca.shapeworld import Caption, Reading

BATCH = 25
PIXELS = mini.SIZE * 8  # a side, as FLUX's sampler counts: eight for each latent
Aspect = Callable[[Caption, Reading], bool]


def shapes_fit(asked: Caption, read: Reading) -> bool:
    return not read.unclear and sorted(shape for shape, _ in asked.things) == sorted(o.shape for o in read.objects)


def things_fit(asked: Caption, read: Reading) -> bool:
    return not read.unclear and sorted(asked.things) == sorted((o.shape, o.colour) for o in read.objects)


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
    """whole: whether the picture is all that its caption says."""

    tag: str
    caption: Caption
    picture: np.ndarray
    correct: bool
    whole: bool

    def line(self) -> dict[str, object]:
        """As a line of GenEval's evaluator."""
        return dict(tag=self.tag, prompt=str(self.caption), correct=self.correct)


@dataclass(frozen=True)
class Sampler:
    """flux-mini and how it samples. guidance: of a model that is distilled for it. method: of caching; default none."""

    networks: tuple[Flux, HFEmbedder, HFEmbedder]
    num_steps: int = 28
    guidance: float = 3.5
    method: Method | None = None

    @torch.no_grad()
    def __call__(self, captions: list[str], seeds: list[int]) -> np.ndarray:
        """Pictures (B, 32, 32, 3) uint8 of captions and a seed each."""
        flux, t5, clip = self.networks
        noise = torch.stack([torch.randn(mini.CHANNELS, mini.SIZE, mini.SIZE, generator=g) for g in item_generators(0, seeds)])
        inputs = prepare(t5, clip, noise.to(flux.img_in.weight.device), captions)
        timesteps = get_schedule(self.num_steps, inputs["img"].shape[1])
        x = denoise(flux, **inputs, timesteps=timesteps, guidance=self.guidance, method=self.method, seeds=seeds)
        return to_uint8(unpack(x, PIXELS, PIXELS))


def evaluate(sampler: Sampler, images: int, seed: int = 0) -> Iterator[Sample]:
    """`images` samples of every task; a picture depends on seed, task and number alone."""
    for number_of_task, (tag, (kind, aspect)) in enumerate(TASKS.items()):
        captions = [shapeworld.describe(shapeworld.KINDS[kind](item_seed(seed, number_of_task), i)) for i in range(images)]
        seeds = [item_seed(seed, 1000 * i + number_of_task) for i in range(images)]
        for first in range(0, images, BATCH):
            some = slice(first, first + BATCH)
            drawn = sampler([str(caption) for caption in captions[some]], seeds[some])
            for caption, picture in zip(captions[some], drawn, strict=True):
                read = shapeworld.judge(picture)
                yield Sample(tag, caption, picture, aspect(caption, read), shapeworld.agrees(caption, read))


def table(samples: list[Sample]) -> str:
    """Accuracy per task with Wilson's 95% intervals, and of whole captions."""
    found = summary(sample.line() for sample in samples)
    rows = [(tag, task.correct, task.images) for tag, task in found.tasks.items()]
    rows.append(("whole caption", sum(sample.whole for sample in samples), len(samples)))
    return "\n".join([*(row(*counts) for counts in rows), f"{'overall':14} {found.overall:6.1%}"])


def row(name: str, correct: int, images: int) -> str:
    low, high = wilson(correct, images)
    return f"{name:14} {correct / images:6.1%} ({low:.1%} to {high:.1%}), {correct} of {images}"


def sheet(samples: list[Sample], columns: int = 4, scale: int = 4) -> Image.Image:
    """The pictures in rows."""
    rows = [samples[first : first + columns] for first in range(0, len(samples) // columns * columns, columns)]
    picture = np.concatenate([np.concatenate([sample.picture for sample in row], axis=1) for row in rows])
    return Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1))


def parser() -> argparse.ArgumentParser:
    p = Parser(description=__doc__)
    p.add_argument("--weights", type=Path, required=True, help="folder of flux-mini")
    p.add_argument("--images", type=whole(1, 10_000), default=50, help="of every task (default 50)")
    p.add_argument("--num_steps", type=whole(1, 1000), default=28)
    p.add_argument("--guidance", type=number(0, 100), default=3.5, help="of a model that is distilled for it (default 3.5)")
    p.add_argument("--seed", type=whole(0), default=0)
    p.add_argument("--sheet", type=Path, default=None, help="write pictures here, the same number of every task")
    p.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    return p


@program_errors()
def main(args: argparse.Namespace) -> None:
    networks = mini.load(args.weights, device_from(args.device))
    samples = list(evaluate(Sampler(networks, args.num_steps, args.guidance), args.images, args.seed))
    print(table(samples), flush=True)
    if args.sheet:
        some = [sample for tag in TASKS for sample in [s for s in samples if s.tag == tag][:4]]
        sheet(some).save(args.sheet)
        print("\n".join(f"{i:2} {s.caption}: {'right' if s.correct else 'wrong'}" for i, s in enumerate(some)))


if __name__ == "__main__":
    main(parser().parse_args())
