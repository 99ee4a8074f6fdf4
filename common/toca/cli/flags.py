"""The caching flags that every fork has, in its upstream's spelling, and the method they stand for. Free of torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NoReturn

from toca.methods import METHODS, Method, register
from toca.planning.spec import ModelSpec

TRUTH = {"true": True, "yes": True, "t": True, "y": True, "1": True, "false": False, "no": False, "f": False, "n": False, "0": False}


MOST_STEPS, MOST_IMAGES, MOST_PIXELS = 1000, 10_000_000, 16_384  # steps of training; of one run; of a side
LARGEST_SEED = 2**63 - 1


class Parser(argparse.ArgumentParser):
    """Errors are one line with status 2; a flag is written out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter} | kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def whole(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """The type of a flag that is a whole number in a range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {_short(text)}") from None
        if value < least or value > (2**31 if most is None else most):
            allowed = f"at least {least}" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"must be a whole number of {allowed}, got {_short(text)}")
        return value

    return parse


def number(least: float = -1e9, most: float = 1e9) -> Callable[[str], float]:
    """The type of a flag that is a finite number in a range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, got {_short(text)}") from None
        if not least <= value <= most:  # NaN is in no range
            raise argparse.ArgumentTypeError(f"must be {least:g} to {most:g}, got {_short(text)}")
        return value

    return parse


def _short(text: str) -> str:
    return repr(text if len(text) < 40 else text[:36] + "...")


def truth(text: str) -> bool:
    """The type of a flag that is followed by true or false."""
    if text.lower() not in TRUTH:
        raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
    return TRUTH[text.lower()]


def add_method_flags(
    parser: argparse.ArgumentParser,
    presets: Iterable[str],
    spec: ModelSpec,
    joint: str,
    choices: Mapping[str, Iterable[str]] | None = None,
    help: Mapping[str, str] | None = None,
    **defaults: Any,
) -> argparse._ArgumentGroup:
    """The caching method and the settings of all methods, for `method_from`. Returns their group, for what a fork has beside.

    presets: names of published settings. spec: any of the model, for the flags it has use for. joint: "-" or "_", between words.
    choices, help, defaults: by flag, where the fork's differ. Methods of other packages join by an entry point in the group
    `toca.methods`, which names a method class.
    """
    for entry in entry_points(group="toca.methods"):
        register(entry.load())
    group = parser.add_argument_group("caching")
    choices, help = choices or {}, help or {}

    def add(name: str, default: Any, text: str, **options: Any) -> None:
        options |= {"choices": tuple(choices[name])} if name in choices else {}
        group.add_argument("--" + name.replace("_", joint), default=defaults.get(name, default), help=help.get(name, text), **options)

    add("preset", None, "a published setting; flags given beside it win", choices=tuple(presets))
    add("method", "toca", "how steps are cached", choices=tuple(METHODS))
    for flag in {flag.name: flag for method in METHODS.values() for flag in method.flags if flag.applies(spec)}.values():
        if flag.type is bool:
            add(flag.name, flag.default, flag.help, action="store_true")
        else:
            ranged = {int: whole, float: number}.get(flag.type)
            kind = ranged(flag.least, flag.most) if ranged else flag.type
            allowed = flag.choices and flag.choices(spec)
            default = allowed[0] if allowed and flag.default not in allowed else flag.default
            add(flag.name, default, flag.help, type=kind, choices=allowed)
    return group


SOLVERS, GRIDS = ("dpm++", "unipc"), ("karras", "quadratic", "exponential", "uniform")  # of `toca.diffusion.solvers`, which needs torch


def add_solver_flags(parser: argparse.ArgumentParser, grids: Sequence[str] = GRIDS) -> None:
    """A good solver on a good grid, in place of the published sampler, for `solver_from`. grids: those of the model, the best first."""
    parser.add_argument("--solver", choices=SOLVERS, default=None, help="second order, in place of the published sampler (diffusers')")
    parser.add_argument("--grid", choices=grids, default=None, help=f"noise levels of --solver (default {grids[0]})")


def solver_from(args: argparse.Namespace, grids: Sequence[str] = GRIDS) -> tuple[str, str] | None:
    """(solver, grid) of the flags, None for the published sampler. Raises ValueError on a grid without a solver."""
    if args.solver is None and args.grid is not None:
        raise ValueError(f"--grid {args.grid} needs --solver: {' or '.join(SOLVERS)}")
    return args.solver and (args.solver, args.grid or grids[0])


def method_from(args: argparse.Namespace) -> Method:
    """The caching method of the flags. Raises ValueError on settings that make no sense."""
    return METHODS[args.method].from_flags(vars(args))


def check_used(parser: argparse.ArgumentParser, args: argparse.Namespace, argv: Sequence[str] | None = None) -> None:
    """Refuse settings that were given on the command line and would change nothing: the method does not have them, or not beside others.

    args: what `parser` made of argv. Settings of a preset are no matter: a method takes those it has.
    """
    own = {flag.name for flag in METHODS[args.method].flags}
    unset = object()
    given = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args), unset)))
    for flag in {flag.name: flag for method in METHODS.values() for flag in method.flags}.values():
        if getattr(given, flag.name, unset) is unset:
            continue
        option = next(option for action in parser._actions if action.dest == flag.name for option in action.option_strings)
        if flag.name not in own:
            methods = ", ".join(method.name for method in METHODS.values() if flag in method.flags)
            parser.error(f"argument {option}: --method {args.method} has no such setting; it is of {methods}")
        if why := flag.idle(vars(args)):
            parser.error(f"argument {option}: it would change nothing, {why}")
