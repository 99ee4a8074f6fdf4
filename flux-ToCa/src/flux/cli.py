"""Text to image, one picture or a loop of them.

python -m flux --name flux-dev --height 1024 --width 1024 --prompt "a fox in the snow"
python -m flux --name flux-schnell --loop
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from flux.flags import parse
from flux.pipeline import Condition, Pipeline
from flux.runs import Clock, Writer
from flux.sampler import CELL
from flux.shared_flags import add_shared_flags, add_switch, check, describe, load_pipeline, program_errors
from toca.runs.files import remove_parts
from toca.runs.programs import device_from

NAMES = ("flux-dev", "flux-schnell", "flux-dev-krea")
PROMPT = "a lighthouse on a cliff above the fog at dawn, with the word FLUX painted on its wall"
HELP = """Type a prompt, nothing to use the last one again, or a command:
/w WIDTH     /h HEIGHT    pixels, multiples of 16
/s SEED      of the next picture
/g GUIDANCE  /n STEPS
/q           quit"""


@dataclass(frozen=True)
class Options:
    """What the next picture is made of. seed: None draws a fresh one."""

    prompt: str
    width: int
    height: int
    num_steps: int
    guidance: float
    seed: int | None


COMMANDS = {"w": "width", "h": "height", "s": "seed", "g": "guidance", "n": "num_steps"}


def changed(options: Options, line: str) -> Options:
    """The options after a slash command. Raises ValueError that says what is wrong with it."""
    name, _, value = line[1:].partition(" ")
    if name not in COMMANDS:
        raise ValueError(f"unknown command /{name}")
    field = COMMANDS[name]
    try:
        number = float(value) if field == "guidance" else int(value)
    except ValueError:
        raise ValueError(f"/{name} wants a number, got {value.strip()!r}") from None
    if field in ("width", "height") and (number < CELL or number % CELL):
        raise ValueError(f"/{name} wants a multiple of {CELL}, got {number}")
    if field == "num_steps" and number < 1:
        raise ValueError(f"/{name} wants at least 1 step, got {number}")
    return replace(options, **{field: number})


def ask(options: Options) -> Options | None:
    """The options of the next picture, from the keyboard; None to quit."""
    while True:
        try:
            line = input("next prompt (or /w /h /s /g /n /q): ").strip()
        except EOFError:
            return None
        if line == "/q":
            return None
        if not line.startswith("/"):
            return replace(options, prompt=line or options.prompt)
        try:
            options = changed(options, line)
            print(f"{options.width}x{options.height}, {options.num_steps} steps, guidance {options.guidance}, seed {options.seed}")
        except ValueError as error:
            print(f"{error}\n{HELP}")


def next_index(folder: Path) -> int:
    """One more than the largest of the pictures in a folder."""
    found = (re.fullmatch(r"img_(\d+)\.jpg", path.name) for path in folder.glob("img_*.jpg"))
    return 1 + max((int(match[1]) for match in found if match), default=-1)


class Run:
    """A program that writes pictures one after the other."""

    def __init__(self, args: argparse.Namespace, pipeline: Pipeline) -> None:
        self.args, self.pipeline, self.folder = args, pipeline, Path(args.output_dir)
        self.writer = Writer(args.name, args.add_sampling_metadata, args.watermark, args.use_nsfw_filter)
        remove_parts(self.folder)
        print(pipeline.weights(), flush=True)

    def picture(self, options: Options, condition: Condition | None = None, image_tokens: torch.Tensor | None = None) -> np.ndarray:
        """Make and write one picture."""
        seed = torch.Generator().seed() % 2**32 if options.seed is None else options.seed
        clock, path = Clock(self.pipeline), self.folder / f"img_{next_index(self.folder)}.jpg"
        with clock:
            (picture,) = self.pipeline.generate(
                [options.prompt], [seed], options.height, options.width, options.num_steps, options.guidance, condition, image_tokens
            )
        clock.images = 1
        written = self.writer.write(picture, path, options.prompt)
        print(f"seed {seed}: {options.prompt!r}\n{clock.report()}{f' -> {path}' if written else ''}", flush=True)
        return picture


def options_from(args: argparse.Namespace) -> Options:
    return Options(args.prompt, args.width, args.height, args.num_steps, args.guidance, args.seed)


@program_errors()
def main(args: argparse.Namespace) -> None:
    cost = check(args)
    print(describe(args, cost), flush=True)
    if args.test_FLOPs:
        print(cost.flops_lines(1))
        return
    device = device_from(args.device)
    run, options = Run(args, load_pipeline(args, device, progress=True)), options_from(args)
    if not args.loop:
        run.picture(options)
        return
    print(HELP)
    while options := ask(options):
        run.picture(options)
        options = replace(options, seed=None)


def add_program_flags(p: argparse.ArgumentParser) -> None:
    """Flags of all sub-commands beside the shared ones."""
    p.add_argument("--seed", type=int, default=None, help="default: a fresh one for every picture")
    p.add_argument("--output_dir", default="output", help="img_0.jpg, img_1.jpg, ...; counts on from what is there")
    add_switch(p, "--add_sampling_metadata", True, "write the prompt into the EXIF data")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m flux", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--name", choices=NAMES, default="flux-schnell")
    p.add_argument("--prompt", default=PROMPT)
    add_switch(p, "--loop", False, "ask for prompts, until /q")
    add_program_flags(p)
    add_shared_flags(p)
    return p


def run(argv: list[str]) -> None:
    main(parse(parser(), argv))
