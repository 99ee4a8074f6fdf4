"""A sampling run before it starts, and the installed model forks that can describe one. The engine knows forks by entry point only."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from toca.planning.run import PlannedRun
from toca.presets import Preset

MODELS, BENCHMARKS = "toca.models", "toca.benchmarks"  # entry-point groups


class Fork(Protocol):
    """What a module registered under `toca.models` defines, free of torch.

    presets: published settings by name, what `--preset` chooses from.
    """

    presets: Mapping[str, Preset]

    def planning_parser(self) -> argparse.ArgumentParser:
        """The flags that decide what a run computes, `--preset` among them; a parent parser, made with add_help=False."""

    def planned_run(self, args: argparse.Namespace) -> PlannedRun:
        """Raises ValueError on flags that make no sense."""


def load_fork(name: str) -> Fork:
    """An installed fork by name. Raises ValueError if there is none of that name."""
    return _entry_point(MODELS, name).load()


def load_benchmark(name: str) -> Callable[[Sequence[str]], None]:
    """A fork's benchmark, called with its arguments. Raises ValueError if there is none of that name."""
    return _entry_point(BENCHMARKS, name).load()


def _entry_point(group: str, name: str) -> EntryPoint:
    installed = {entry.name: entry for entry in entry_points(group=group)}
    if name not in installed:
        what = "model" if group == MODELS else "benchmark"
        raise ValueError(f"there is no {what} {name!r}; installed: {', '.join(sorted(installed)) or 'none (pip install -e a fork)'}")
    return installed[name]
