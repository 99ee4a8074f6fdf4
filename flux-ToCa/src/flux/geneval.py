"""Pictures for GenEval, in its folder layout.

For prompt i: `{i:05d}/metadata.jsonl`, `{i:05d}/samples/{k:05d}.png` and `{i:05d}/grid.png`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from flux.flags import STEPS, RunSettings, parse
from flux.pipeline import Pipeline
from flux.runs import Writer, add_batch_flags, checked, chunks, program_errors
from flux.weights import Files
from toca.cli.flags import MOST_IMAGES, Parser, whole
from toca.console import announce
from toca.runs.clock import Stopwatch
from toca.runs.files import atomic_path, remove_parts
from toca.runs.folder import RunFolder
from toca.runs.pictures import save_picture
from toca.runs.processes import process_group
from toca.runs.programs import device_from

OUTPUTS = "[0-9]*/samples/*.png"


def read_metadata(path: str) -> list[dict[str, Any]]:
    """The objects of a JSONL file. Raises ValueError if it cannot be read, a line is none, or has no prompt."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    objects = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(json.loads(line, parse_constant=_no_constant))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        prompt = objects[-1].get("prompt") if isinstance(objects[-1], dict) else None
        if not isinstance(prompt, str) or prompt.encode("utf-8", "ignore").decode() != prompt:
            raise ValueError(f"{path}, line {number} has no prompt")
    if not objects:
        raise ValueError(f"{path} holds no prompt: one JSON object per line")
    return objects


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")


@dataclass(frozen=True)
class Layout:
    """Where GenEval looks for the samples of its prompts. Sample k of prompt i is item i * samples + k of the run."""

    folder: Path
    samples: int
    grids: bool

    def own(self, prompt: int) -> Path:
        return self.folder / f"{prompt:05d}"

    def file_of(self, item: int) -> Path:
        return self.own(item // self.samples) / "samples" / f"{item % self.samples:05d}.png"

    def items(self, prompt: int) -> range:
        return range(prompt * self.samples, (prompt + 1) * self.samples)

    def lacking(self, prompt: int) -> bool:
        """Whether something of a prompt is not there."""
        files = [self.own(prompt) / "metadata.jsonl", *map(self.file_of, self.items(prompt))]
        return not all(path.exists() for path in files + [self.own(prompt) / "grid.png"] * self.grids)

    def write_grid(self, prompt: int, columns: int) -> None:
        """`grid.png` of the samples that are there, two pixels apart."""
        paths = [path for path in map(self.file_of, self.items(prompt)) if path.exists()]
        if not paths:
            return
        pictures = torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in paths])
        save_picture(make_grid(pictures, nrow=columns, padding=2).permute(1, 2, 0).numpy(), self.own(prompt) / "grid.png")


def parser() -> Parser:
    p = Parser(prog="geneval_flux.py", description=__doc__)
    p.add_argument("metadata_file", help="JSON lines with a prompt each, as GenEval's evaluation_metadata.jsonl")
    p.add_argument("--n_samples", type=whole(1, MOST_IMAGES), default=1, help="per prompt")
    p.add_argument("--skip_grid", action="store_true", help="write no grid.png, which has --batch_size columns")
    add_batch_flags(p, "outputs", seed=42)
    p.add_argument("--steps", dest="num_steps", type=STEPS, default=None, help="the same as --num_steps")
    return p


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Sample k of every prompt is made of seed + k, whatever the batch. The same command again goes on where an interrupted run stopped."""
    args = parse(parser(), argv)
    metadata, settings = read_metadata(args.metadata_file), RunSettings.from_args(args)
    announce(settings.describe())
    if args.test_FLOPs:
        return announce(settings.flops_lines(args.batch_size))
    device, layout = device_from(args.device), Layout(Path(args.output_dir), args.n_samples, not args.skip_grid)
    files, decides, writer = checked(settings, layout.folder, dict(metadata=metadata), OUTPUTS, len(metadata) * args.n_samples)
    with (
        process_group(device) as (rank, world, device),
        RunFolder(layout.folder, decides, settings.summary(), OUTPUTS, rank, world) as run,
    ):
        todo = [prompt for prompt in range(len(metadata)) if layout.lacking(prompt)]
        announce(f"{len(metadata)} prompts, {len(todo)} to do, {args.n_samples} samples each -> {layout.folder}")
        sample(args, files, writer, layout, metadata, list(range(len(metadata)))[rank::world], run, device)


def sample(
    args: argparse.Namespace,
    files: Files,
    writer: Writer,
    layout: Layout,
    metadata: list[dict[str, Any]],
    mine: list[int],
    run: RunFolder,
    device: torch.device,
) -> None:
    """The prompts of one process."""
    for prompt in mine:
        if layout.lacking(prompt):
            remove_parts(layout.own(prompt))
            remove_parts(layout.own(prompt) / "samples")
            with atomic_path(layout.own(prompt) / "metadata.jsonl") as part:
                part.write_text(json.dumps(metadata[prompt]), encoding="utf-8")
    batches = [batch for prompt in mine for batch in chunks(layout.items(prompt), args.batch_size)]
    if any(run.lacking(batch, layout.file_of) for batch in batches):
        settings = files.settings
        pipeline, watch = Pipeline.load(files, device, progress=run.rank == 0), Stopwatch(device)
        announce(pipeline.weights())

        def make(batch: list[int]) -> np.ndarray:
            prompts, seeds = zip(*((metadata[item // layout.samples]["prompt"], args.seed + item % layout.samples) for item in batch))
            with watch:
                pictures = pipeline.generate(prompts, seeds, **settings.sampling())
            watch.items += len(batch)
            return pictures

        def save(item: int, picture: np.ndarray) -> None:
            prompt = item // layout.samples
            if layout.grids:
                (layout.own(prompt) / "grid.png").unlink(missing_ok=True)  # of fewer samples
            writer.write(picture, layout.file_of(item), metadata[prompt]["prompt"], any_metadata=False)
            if layout.grids and not run.lacking(layout.items(prompt), layout.file_of):
                layout.write_grid(prompt, args.batch_size)

        run.sample(batches, layout.file_of, make, save)
        announce(watch.report())
    for prompt in mine:  # whose samples the filter left out
        if layout.grids and layout.lacking(prompt):
            layout.write_grid(prompt, args.batch_size)
