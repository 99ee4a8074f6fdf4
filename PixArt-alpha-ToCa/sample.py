"""One picture of one prompt, to a file.

    python sample.py --prompt "a fox in the snow" --preset toca3-r70
    python sample.py --image_size 1024 --prompt "a lighthouse at dusk --ar 3:2" --method none --output lighthouse.png

For many prompts there is scripts/inference.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from PIL import Image

from pixart.flags import parse
from pixart.runs import MEMORY_ADVICE, Pipeline, add_run_flags, check_plan, prepare, read_lines
from toca.cli.report import run_summary, summary_line
from toca.runs.files import atomic_path
from toca.runs.programs import program_errors


@program_errors(MEMORY_ADVICE)
def main(args: argparse.Namespace) -> None:
    if Path(args.output).suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--output {args.output}: not the name of a picture, try sample.png")
    prompts, device = read_lines([args.prompt.strip()], args.image_size), prepare(args)
    print(summary_line(run_summary(check_plan(args))), flush=True)
    pipeline = Pipeline(args, device, progress=True)
    pipeline.encode([p.text for p in prompts])
    started = time.perf_counter()
    (picture,) = pipeline.pictures(prompts, args.seed, [0])
    seconds = time.perf_counter() - started
    with atomic_path(args.output) as part:
        Image.fromarray(picture).save(part)
    memory = f", peak {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB" if device.type == "cuda" else ""
    print(f"{prompts[0].size.width} x {prompts[0].size.height} pixels in {seconds:.2f} s{memory} -> {args.output}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add_run_flags(p)
    p.add_argument("--prompt", required=True, help="with --ar height:width for another shape than the square, at 1024 pixels")
    p.add_argument("--output", default="sample.png")
    return p


if __name__ == "__main__":
    main(parse(parser()))
