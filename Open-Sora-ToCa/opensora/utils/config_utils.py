"""Configurations: Python files that say what a run is made of, and how they, presets and flags win over each other."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toca.cli.flags import truth
from toca.presets import OPENSORA

PARTS = ("model", "vae", "text_encoder", "scheduler")  # what a configuration builds
Parts = dict[str, dict[str, Any]]
ALTERNATIVES = ({"prompt", "prompt_path", "prompt_generator"}, {"image_size", "resolution"})  # of which the source that wins says one


def read_config(path: str, flags: Mapping[str, argparse.Action]) -> tuple[dict[str, Any], Parts]:
    """(values of flags, parts to build) of a configuration file; what is None there is not said.

    The file is a Python program, and is run. flags: all that a configuration may set.
    Raises ValueError that names the file and the key, FileNotFoundError if it is not there.
    """
    config = _run(path)
    if missing := [part for part in PARTS if not isinstance(config.get(part), dict)]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it must describe {', '.join(PARTS)}, each by a dict(type=...)")
    parts = {part: config.pop(part) for part in PARTS}
    if unknown := sorted(config.keys() - flags.keys()):
        raise ValueError(f"{path} sets {', '.join(unknown)}; known are {', '.join(sorted([*flags, *PARTS]))}")
    return {key: _values(flags[key], value, f"{path} sets {key}") for key, value in config.items() if value is not None}, parts


def _run(path: str) -> dict[str, Any]:
    from mmengine.config import Config

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no configuration {path}")
    if Path(path).suffix != ".py":
        raise ValueError(f"{path} is no Python configuration: its name must end in .py")
    try:
        return Config.fromfile(path).to_dict()
    except (Exception, SystemExit) as error:  # it is a program, which may fail in any way
        raise ValueError(f"{path} is not a configuration: {type(error).__name__}: {error}") from error


def _values(flag: argparse.Action, value: Any, where: str) -> Any:
    """What a flag makes of a value of a configuration. Raises ValueError that says where it stands."""
    if flag.nargs not in ("+", 2, 4):
        return _value(flag, value, f"{where} = {value!r}")
    if not isinstance(value, list | tuple) or (flag.nargs != "+" and len(value) != flag.nargs):
        raise ValueError(f"{where} = {value!r}: expected a list{'' if flag.nargs == '+' else f' of {flag.nargs}'}")
    return [_value(flag, single, f"{where} = {single!r}") for single in value]


def _value(flag: argparse.Action, value: Any, where: str) -> Any:
    if flag.nargs == 0 or flag.type is truth:
        kinds, wanted = bool, "True or False"
    elif flag.type is None:
        kinds, wanted = str, "a text"
    else:
        kinds, wanted = (int, float, str), "a number"
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise ValueError(f"{where}: expected {wanted}")
    if flag.type not in (None, truth):
        try:
            value = flag.type(str(value))
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"{where}: {error}") from error
    if flag.choices is not None and value not in flag.choices:
        raise ValueError(f"{where}; choose from {', '.join(map(str, flag.choices))}")
    return value


def merged(defaults: Mapping[str, Any], *sources: Mapping[str, Any]) -> dict[str, Any]:
    """The values of several sources, of which later ones win. A preset comes just before the source that names it; a source that names
    a method or a preset leaves nothing of an earlier preset."""
    layers: list[Mapping[str, Any]] = [defaults]
    preset: Mapping[str, Any] = {}
    for source in sources:
        if source.keys() & {"method", "preset"}:
            layers = [layer for layer in layers if layer is not preset]
            name = source.get("preset")
            preset = {**(OPENSORA[name].flags if name else {}), "preset": name}
            layers.append(preset)
        layers.append(source)
    values: dict[str, Any] = {}
    for layer in layers:
        for group in ALTERNATIVES:
            if layer.keys() & group:
                values |= dict.fromkeys(group)
        values |= layer
    return values
