"""What a run does and costs, before it runs and without its model; published numbers beside ours; distances; benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toca.cli import report
from toca.cli import table as published
from toca.cli.evaluate import add_metrics, evaluate
from toca.cli.flags import Parser, check_used, whole
from toca.cli.forks import Fork, load_benchmark, load_fork
from toca.planning.memory import DTYPES
from toca.planning.run import PlannedRun
from toca.presets import PRINTED, parse_with_preset


@dataclass(frozen=True)
class Request:
    """A command on an installed model, with the flags given."""

    command: str
    model: str
    fork: Fork
    argv: Sequence[str]

    def args(self, *before: str) -> argparse.Namespace:
        return parse_with_preset(self.parser(), self.fork.presets, [*before, *self.argv])

    def run(self, *before: str) -> PlannedRun:
        args = self.args(*before)
        if not before and "method" in args:  # beside a row of a table, flags are for those whose method has them
            check_used(self.parser(), args, self.argv)
        return self.fork.planned_run(args)

    def parser(self) -> Parser:
        """The flags of the model and of the command."""
        command = COMMANDS[self.command]
        parser = Parser(prog=f"toca {self.command} {self.model}", description=command.description, parents=[self.fork.planning_parser()])
        add_options(parser, command)
        return parser


Answer = tuple[Any, str]  # machine-readable data, and the text that says the same


def plan(request: Request) -> Answer:
    run, png = request.run(), request.args().png
    if png:
        from toca.cli.heat_map import save_heat_map

        save_heat_map(run, png)
    return report.plan_data(run), report.plan_text(run)


def flops(request: Request) -> Answer:
    data = report.flops_data(request.run(), request.args().images)
    return data, report.flops_text(data)


def memory(request: Request) -> Answer:
    data = report.memory_data(request.run(), request.args().batch, request.args().dtype)
    return data, report.memory_text(data)


def table(request: Request) -> Answer:
    presets, one = request.fork.presets, request.args().preset
    data = [published.preset_data(name, presets[name], request.run("--preset", name)) for name in ([one] if one else presets)]
    if not one:
        data += [published.printed_data(name, rows, data[0]["baseline"]) for name, rows in PRINTED.get(request.model, {}).items()]
    return data, published.table_text(data)


@dataclass(frozen=True)
class Command:
    """options: flags of the command beside the model's, with what `add_argument` is told."""

    answer: Callable[[Request], Answer]
    help: str
    description: str
    options: dict[str, dict[str, Any]]


COMMANDS = {
    "plan": Command(
        plan,
        "what every step computes",
        "What a run computes at every step: its kind; the tokens of every branch, fewest..most over layers and steps, and their mean "
        "share; FLOPs.",
        {"--png": dict(metavar="FILE", help="also draw the plan, steps x layers, to a picture file")},
    ),
    "flops": Command(
        flops,
        "FLOPs of a run, and the speed-up",
        "FLOPs of a run by kind of step, in two counters. matmul: two for every multiply-add of all matrix products. upstream: as the "
        "published code counts, whose totals need --upstream-exact.",
        {"--images": dict(type=whole(), default=1, metavar="N", help="count for N images (default 1)")},
    ),
    "memory": Command(
        memory,
        "bytes the cache of a run will hold",
        "Bytes that the cache of a run holds after every step and at the peak, part by part.",
        {
            "--batch": dict(type=whole(), default=1, metavar="N", help="images in the batch (default 1)"),
            "--dtype": dict(choices=DTYPES, default="fp32", help="of the model (default fp32)"),
        },
    ),
    "table": Command(
        table,
        "published numbers beside ours",
        "Every published setting of a model: the numbers printed for it, the FLOPs that the published code's counter gives on its own "
        "steps (exact), and all matrix products on our default steps; speed-ups over one uncached run a table, which it names. "
        "With --preset NAME that setting alone; flags given beside it win.",
        {},
    ),
}


def add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    group = parser.add_argument_group(f"options of {parser.prog.split()[1]}")
    for flag, settings in command.options.items():
        group.add_argument(flag, **settings)
    group.add_argument("--json", action="store_true", help="print machine-readable data")


def command_line() -> Parser:
    parser = Parser(prog="toca", description=__doc__, epilog="More: toca COMMAND --help; a model's flags: toca COMMAND MODEL --help")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        usage = f"toca {name} MODEL [flags of the model] [options]"
        sub = commands.add_parser(name, help=command.help, description=command.description, usage=usage)
        sub.add_argument("model", metavar="MODEL", help=f"an installed model, for instance dit; its flags: toca {name} MODEL --help")
        add_options(sub, command)
    sub = commands.add_parser(
        "compare", help="PSNR and SSIM of two sample sets", description="Mean PSNR and SSIM of pairs of pictures or frames."
    )
    sub.add_argument("a", metavar="A", help="samples: an .npz with arr_0, uint8 (N, H, W, C), a picture, a video, or a folder of them")
    sub.add_argument("b", metavar="B", help="samples to compare them with, of the same kind, number, names and sizes")
    sub.add_argument("--json", action="store_true", help="print machine-readable data")
    sub = commands.add_parser("eval", help="what sample sets are worth: FID, CLIP score, GenEval, VBench, ...", description="Metrics.")
    add_metrics(sub)
    usage = "toca bench MODEL [options of the benchmark]"
    sub = commands.add_parser("bench", help="seconds and bytes on this machine", description="Run a model's benchmark.", usage=usage)
    sub.add_argument("model", metavar="MODEL", help="an installed model, for instance dit; its options: toca bench MODEL --help")
    return parser


def compare(a: str, b: str) -> Answer:
    from toca.metrics.compare import compare

    data = compare(a, b)
    return data, report.compare_text(data)


def main(argv: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = command_line()
    of_files = argv[:1] in (["compare"], ["eval"])  # commands on files, not on a model
    args = parser.parse_args(argv if of_files else argv[:2])
    parser.prog = " ".join(["toca", *argv[: 1 if args.command == "compare" else 2]])
    try:
        if args.command == "bench":
            return load_benchmark(args.model)(argv[2:])
        if of_files:
            as_json, (data, text) = args.json, compare(args.a, args.b) if args.command == "compare" else evaluate(args)
        else:
            request = Request(args.command, args.model, load_fork(args.model), argv[2:])
            as_json, (data, text) = request.args().json, COMMANDS[args.command].answer(request)
        print(json.dumps(data) if as_json else text, flush=True)
    except BrokenPipeError:  # `toca plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
