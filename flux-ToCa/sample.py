"""One picture of one prompt, to a file.

    python sample.py --model_name flux-dev --width 1024 --height 1024 --prompt "a fox in the snow"
    python sample.py --model_name flux-dev --preset fora3 --output fora3.png --prompt "a fox in the snow"

For many prompts there is src/sample.py; for a loop of prompts, `python -m flux --loop`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flux.cli import NAMES, PROMPT
from flux.flags import parse
from flux.runs import Clock, Writer
from flux.shared_flags import add_shared_flags, check, describe, load_pipeline, program_errors
from toca.runs.programs import device_from


@program_errors()
def main(args: argparse.Namespace) -> None:
    cost = check(args)
    print(describe(args, cost), flush=True)
    if args.test_FLOPs:
        print(cost.flops_lines(1))
        return
    if Path(args.output).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"--output {args.output}: not the name of a picture, try sample.png")
    pipeline = load_pipeline(args, device_from(args.device), progress=True)
    print(pipeline.weights(), flush=True)
    clock = Clock(pipeline)
    with clock:
        (picture,) = pipeline.generate([args.prompt], [args.seed], args.height, args.width, args.num_steps, args.guidance)
    clock.images = 1
    written = Writer(args.name, True, args.watermark, args.use_nsfw_filter).write(picture, Path(args.output), args.prompt)
    print(f"{clock.report()}{f' -> {args.output}' if written else ''}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--model_name", "--name", dest="name", choices=NAMES, default="flux-schnell")
    p.add_argument("--prompt", default=PROMPT)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--output", default="sample.png")
    add_shared_flags(p)
    return p


if __name__ == "__main__":
    main(parse(parser()))
