"""Text to image, one picture or a loop of them.

python -m flux --name flux-dev --height 1024 --width 1024 --prompt "a fox in the snow"
python -m flux --name flux-schnell --loop
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from flux.flags import GUIDANCE, SEED, SIDE, STEPS, TEXT_MODELS, RunSettings, add_shared_flags, add_switch, check_writable, parse
from flux.pipeline import Condition, Pipeline
from flux.runs import Writer, program_errors
from flux.spec import CELL
from toca.cli.flags import Parser
from toca.console import announce
from toca.runs.clock import Stopwatch
from toca.runs.files import remove_parts
from toca.runs.programs import device_from

PROMPT = "a lighthouse on a cliff above the fog at dawn, with the word FLUX painted on its wall"
HELP = """Type a prompt, nothing to use the last one again, or a command:
/w WIDTH     /h HEIGHT    pixels, multiples of 16
/s SEED      of the next picture
/g GUIDANCE  /n STEPS
/q           quit"""
COMMANDS = {"w": ("width", SIDE), "h": ("height", SIDE), "s": ("seed", SEED), "g": ("guidance", GUIDANCE), "n": ("num_steps", STEPS)}


def changed(settings: RunSettings, line: str) -> RunSettings:
    """The settings after a slash command. Raises ValueError that says what is wrong with it."""
    name, _, text = line[1:].partition(" ")
    if name not in COMMANDS:
        raise ValueError(f"unknown command /{name}")
    field, kind = COMMANDS[name]
    try:
        value = kind(text.strip())
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"/{name} {error}") from None
    if kind is SIDE and value % CELL:
        raise ValueError(f"/{name} wants a multiple of {CELL}, got {value}")
    return settings.changed(**{field: value})


@dataclass(frozen=True)
class Order:
    """The next picture of a loop."""

    prompt: str
    settings: RunSettings


def ask(order: Order) -> Order | None:
    """The next picture, from the keyboard; None to quit."""
    while True:
        try:
            line = input("next prompt (or /w /h /s /g /n /q): ").strip()
        except EOFError:
            return None
        if line == "/q":
            return None
        if not line.startswith("/"):
            return replace(order, prompt=line or order.prompt)
        try:
            order = replace(order, settings=changed(order.settings, line))
        except ValueError as error:
            announce(f"{error}\n{HELP}")
            continue
        s = order.settings
        announce(f"{s.width}x{s.height}, {s.run.num_steps} steps, guidance {s.guidance:g}, seed {s.seed}")


def next_index(folder: Path) -> int:
    """One more than the largest of the pictures in a folder."""
    found = (re.fullmatch(r"img_(\d+)\.jpg", path.name) for path in folder.glob("img_*.jpg"))
    return 1 + max((int(match[1]) for match in found if match), default=-1)


class Run:
    """A program that writes pictures one after the other."""

    def __init__(self, settings: RunSettings, folder: Path) -> None:
        device = device_from(settings.device)
        self.writer, self.pipeline, self.folder = Writer(settings), Pipeline.load(settings, device, progress=True), folder
        remove_parts(folder)
        announce(self.pipeline.weights())

    def picture(self, order: Order, condition: Condition | None = None, image_tokens: torch.Tensor | None = None) -> np.ndarray:
        """Make and write one picture."""
        prompt, settings = order.prompt, order.settings
        seed = torch.Generator().seed() % 2**32 if settings.seed is None else settings.seed
        watch, path = Stopwatch(self.pipeline.device), self.folder / f"img_{next_index(self.folder)}.jpg"
        with watch:
            (picture,) = self.pipeline.generate([prompt], [seed], **settings.sampling(), condition=condition, image_tokens=image_tokens)
        watch.items = 1
        written = self.writer.write(picture, path, prompt)
        announce(f"seed {seed}: {prompt!r}\n{watch.report()}{f' -> {path}' if written else ''}")
        return picture


def announced(args: argparse.Namespace, settings: RunSettings) -> bool:
    """Say what the run costs; whether it is to go on, which needs a folder for its pictures."""
    announce(settings.describe())
    if args.test_FLOPs:
        announce(settings.flops_lines(1))
        return False
    check_writable(Path(args.output_dir), "--output_dir")
    return True


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    settings = RunSettings.from_args(args)
    if not announced(args, settings):
        return
    run, order = Run(settings, Path(args.output_dir)), Order(args.prompt, settings)
    if not args.loop:
        run.picture(order)
        return
    announce(HELP)
    while order := ask(order):
        run.picture(order)
        order = replace(order, settings=order.settings.changed(seed=None))


def add_program_flags(p: argparse.ArgumentParser) -> None:
    """Flags of all sub-commands beside the shared ones."""
    p.add_argument("--seed", type=SEED, default=None, help="default: a fresh one for every picture")
    p.add_argument("--output_dir", default="output", help="img_0.jpg, img_1.jpg, ...; counts on from what is there")
    add_switch(p, "--add_sampling_metadata", True, "write the prompt into the EXIF data")


def parser() -> Parser:
    p = Parser(prog="python -m flux", description=__doc__)
    p.add_argument("--name", choices=TEXT_MODELS, default="flux-schnell")
    p.add_argument("--prompt", default=PROMPT)
    add_switch(p, "--loop", False, "ask for prompts, until /q")
    add_program_flags(p)
    add_shared_flags(p)
    return p


if __name__ == "__main__":
    main()
