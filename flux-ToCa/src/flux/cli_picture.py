"""One picture of one prompt, to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flux.cli import PROMPT, program_errors
from flux.flags import SEED, TEXT_MODELS, RunSettings, add_shared_flags, parse, text
from flux.pipeline import Pipeline
from flux.runs import Writer
from flux.weights import Files
from toca.cli.flags import Parser
from toca.console import announce
from toca.runs.clock import Stopwatch
from toca.runs.pictures import check_picture
from toca.runs.programs import device_from

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    settings, path = RunSettings.from_args(args), Path(args.output)
    announce(settings.describe())
    if args.test_FLOPs:
        return announce(settings.flops_lines(1))
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"--output {args.output}: not the name of a picture, try sample.png")
    check_picture(path, "--output")
    device, files = device_from(args.device), Files.find(settings)
    files.check()
    writer, pipeline = Writer(settings), Pipeline.load(files, device, progress=True)
    announce(pipeline.weights())
    watch = Stopwatch(pipeline.device)
    with watch:
        (picture,) = pipeline.generate([args.prompt], [args.seed], **settings.sampling())
    watch.items = 1
    written = writer.write(picture, path, args.prompt)
    announce(f"{watch.report()}{f' -> {path}' if written else ''}")


def parser() -> Parser:
    p = Parser(prog="sample.py", description=__doc__)
    p.add_argument("--model_name", "--name", dest="name", choices=TEXT_MODELS, default="flux-schnell")
    p.add_argument("--prompt", type=text, default=PROMPT)
    p.add_argument("--seed", type=SEED, default=0)
    p.add_argument("--output", default="sample.png", help="a picture's name, its ending says which kind")
    add_shared_flags(p)
    return p
