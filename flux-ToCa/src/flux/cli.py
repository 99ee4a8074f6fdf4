"""Text to image, one picture or a loop of them.

python -m flux --name flux-dev --height 1024 --width 1024 --prompt "a fox in the snow"
python -m flux --name flux-schnell --loop
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from flux.flags import GUIDANCE, SEED, SIDE, STEPS, TEXT_MODELS, RunSettings, add_shared_flags, add_switch, parse, text
from flux.pipeline import Pipeline
from flux.runs import Writer
from flux.spec import CELL
from flux.weights import Files
from toca.cli.flags import Parser
from toca.console import announce
from toca.loading.pictures import read_picture
from toca.runs import programs
from toca.runs.clock import Stopwatch
from toca.runs.files import part_of, take_name
from toca.runs.outputs import check_folder
from toca.runs.programs import device_from, out_of_memory

MEMORY_ADVICE = "try --offload, --dtype bf16, or fewer tokens (--width, --height)"
program_errors = partial(programs.program_errors, MEMORY_ADVICE, after="finished pictures stay")
PROMPT = "a lighthouse on a cliff above the fog at dawn, with the word FLUX painted on its wall"


@dataclass(frozen=True)
class Order:
    """The next picture. pictures: files that it starts from, by command."""

    prompt: str
    settings: RunSettings
    pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """What a line `/name value` of the loop changes, and how it is read: as the flag is."""

    field: str
    kind: Callable[[str], Any]
    help: str


SIZE = {"w": Command("width", SIDE, "width in pixels, a multiple of 16"), "h": Command("height", SIDE, "height, likewise")}
SAMPLING = {
    "s": Command("seed", SEED, "seed of the next picture"),
    "g": Command("guidance", GUIDANCE, "guidance"),
    "n": Command("num_steps", STEPS, "steps"),
}
PICTURE = {"i": Command("pictures", str, "file of the picture to start from")}
MASK = {"m": Command("pictures", str, "file of the mask")}
Commands = Mapping[str, Command]
Prepare = Callable[[Order], tuple[RunSettings, dict[str, Any]]]  # settings and further inputs of `Pipeline.generate`


def changed(order: Order, line: str, commands: Commands) -> Order:
    """The order after a slash command. Raises ValueError that says what is wrong with it."""
    name, _, value = line[1:].partition(" ")
    if name not in commands:
        raise ValueError(f"unknown command /{name}")
    command = commands[name]
    try:
        parsed = command.kind(value.strip())
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"/{name} {error}") from None
    if command.kind is SIDE and parsed % CELL:
        raise ValueError(f"/{name} wants a multiple of {CELL}, got {parsed}")
    if command.field == "pictures":
        read_picture(parsed)
        return replace(order, pictures={**order.pictures, name: parsed})
    return replace(order, settings=order.settings.changed(**{command.field: parsed}))


def usage(commands: Commands) -> str:
    lines = [f"/{name} {command.field.upper():<10} {command.help}" for name, command in commands.items()]
    return "\n".join(["Type a prompt, nothing to use the last one again, or a command:", *lines, "/q            quit"])


def ask(order: Order, commands: Commands) -> Order | None:
    """The next picture, from the keyboard; None to quit."""
    while True:
        try:
            line = input(f"next prompt (or /{' /'.join([*commands, 'q'])}): ").strip()
        except EOFError:
            return None
        except UnicodeDecodeError as error:
            announce(f"that is no text: {error}")
            continue
        if line == "/q":
            return None
        try:
            if not line.startswith("/"):
                return replace(order, prompt=text(line) or order.prompt)
            order = changed(order, line, commands)
        except (ValueError, argparse.ArgumentTypeError) as error:
            announce(f"{error}\n{usage(commands)}")
            continue
        s, files = order.settings, "".join(f", {path}" for path in order.pictures.values())
        announce(f"{s.width}x{s.height}, {s.run.num_steps} steps, guidance {s.guidance:g}, seed {s.seed}{files}")


def next_index(folder: Path) -> int:
    """One more than the largest of the pictures in a folder."""
    found = (re.fullmatch(r"img_(\d+)\.jpg", path.name) for path in folder.glob("img_*.jpg"))
    return 1 + max((int(match[1]) for match in found if match), default=-1)


class Run:
    """A program that writes pictures one after the other; made when all of its flags and files are known to be usable."""

    def __init__(self, settings: RunSettings, folder: Path) -> None:
        check_folder(folder, "--output_dir")
        self.folder, self.device, self.files = folder, device_from(settings.device), Files.find(settings)
        self.files.check()
        self.writer = Writer(settings)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The networks, loaded when first asked for."""
        pipeline = Pipeline.load(self.files, self.device, progress=True)
        announce(pipeline.weights())
        return pipeline

    def picture(self, order: Order, prepare: Prepare) -> None:
        """Make and write one picture, numbered after those that are there."""
        settings, inputs = prepare(order)
        seed = torch.Generator().seed() % 2**32 if settings.seed is None else settings.seed
        pipeline, watch = self.pipeline, Stopwatch(self.device)
        with watch:
            (picture,) = pipeline.generate([order.prompt], [seed], **settings.sampling(), **inputs)
        watch.items = 1
        self.folder.mkdir(parents=True, exist_ok=True)
        first = next_index(self.folder)
        part, path = part_of(self.folder / f"img_{first}.jpg"), None
        try:
            if self.writer.write(picture, part, order.prompt):
                path = take_name(part, lambda index: self.folder / f"img_{index}.jpg", first)
        finally:
            part.unlink(missing_ok=True)
        announce(f"seed {seed}: {order.prompt!r}\n{watch.report()}{f' -> {path}' if path else ''}")

    def loop(self, order: Order, prepare: Prepare, commands: Commands) -> None:
        """A picture of every line, until /q. What fails is said, and the next line asked for."""
        announce(usage(commands))
        while order := ask(order, commands):
            try:
                self.picture(order, prepare)
                order = replace(order, settings=order.settings.changed(seed=None))
            except (ValueError, MemoryError, RuntimeError) as error:
                if not isinstance(error, ValueError) and not out_of_memory(error):
                    raise
                announce(f"no picture: {error if isinstance(error, ValueError) else f'out of memory: {MEMORY_ADVICE}'}")


def run(args: argparse.Namespace, order: Order, prepare: Prepare, commands: Commands, ready: Callable[[], object] = lambda: None) -> None:
    """What all sub-commands do with their flags. ready: what is to be made sure of, or loaded, before the networks."""
    announce(order.settings.describe())
    if args.test_FLOPs:
        return announce(order.settings.flops_lines(1))
    program = Run(order.settings, Path(args.output_dir))
    ready()
    if args.loop:
        return program.loop(order, prepare, commands)
    program.picture(order, prepare)


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    run(args, Order(args.prompt, RunSettings.from_args(args)), lambda order: (order.settings, {}), {**SIZE, **SAMPLING})


def add_program_flags(p: argparse.ArgumentParser) -> None:
    """Flags of all sub-commands beside the shared ones."""
    add_switch(p, "--loop", False, "ask for prompts, until /q")
    p.add_argument("--seed", type=SEED, default=None, help="default: a fresh one for every picture")
    p.add_argument("--output_dir", default="output", help="img_0.jpg, img_1.jpg, ...; counts on from what is there")
    add_switch(p, "--add_sampling_metadata", True, "write the prompt into the EXIF data")


def parser() -> Parser:
    p = Parser(prog="python -m flux", description=__doc__)
    p.add_argument("--name", choices=TEXT_MODELS, default="flux-schnell")
    p.add_argument("--prompt", type=text, default=PROMPT)
    add_program_flags(p)
    add_shared_flags(p)
    return p


if __name__ == "__main__":
    main()
