"""One picture of one prompt, to a file.

    python sample.py --prompt "a fox in the snow" --preset toca3-r70
    python sample.py --image_size 1024 --prompt "a lighthouse at dusk --ar 3:2" --method none --output lighthouse.png

For many prompts there is scripts/inference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pixart.flags import RunSettings, add_run_flags, parse
from pixart.pipeline import Pipeline, embed
from pixart.runs import MEMORY_ADVICE
from toca.cli.flags import Parser
from toca.cli.report import run_summary, summary_line
from toca.console import announce
from toca.runs.clock import Stopwatch
from toca.runs.pictures import check_picture, save_picture
from toca.runs.programs import program_errors, reproducible_matmuls


@program_errors(MEMORY_ADVICE)
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    if not args.prompt.strip():
        raise ValueError("--prompt is empty")
    check_picture(Path(args.output), "--output")
    settings = RunSettings.from_args(args, [args.prompt.strip()])
    reproducible_matmuls()
    announce(summary_line(run_summary(settings.run)))
    watch = Stopwatch(device := torch.device(settings.device))
    embed(settings, device)
    pipeline = Pipeline.load(settings, device, progress=True)
    with watch:
        (picture,) = pipeline.pictures(settings.prompts, settings.seed, [0])
    watch.items += 1
    save_picture(picture, Path(args.output))
    announce(f"{picture.shape[1]} x {picture.shape[0]} pixels, {watch.report()} -> {args.output}")


def parser() -> Parser:
    p = Parser(description=__doc__)
    add_run_flags(p)
    p.add_argument("--prompt", required=True, help="with --ar height:width for another shape than the square, at 1024 pixels")
    p.add_argument("--output", default="sample.png")
    return p


if __name__ == "__main__":
    main()
