"""The caching flags that every fork has, in its upstream's spelling, and the method they stand for. Free of torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

from toca.methods import METHODS, Method, register
from toca.planning.spec import ModelSpec

TRUTH = {"true": True, "yes": True, "t": True, "y": True, "1": True, "false": False, "no": False, "f": False, "n": False, "0": False}


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
            add(flag.name, flag.default, flag.help, type=flag.type, choices=flag.choices and flag.choices(spec))
    return group


def method_from(args: argparse.Namespace) -> Method:
    """The caching method of the flags. Raises ValueError on settings that make no sense."""
    return METHODS[args.method].from_flags(vars(args))
