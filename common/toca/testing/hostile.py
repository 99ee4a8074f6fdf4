"""Bad command lines, run in this process: a program must refuse them in one line, at once, and leave nothing behind."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from unittest import mock

import torch.nn as nn
from torch import Tensor

Main = Callable[[Sequence[str]], object]  # a program's entry, with its arguments
NO_NUMBERS = ("nan", "inf", "-inf", "1e40", "-1e40", "1e400", "9" * 30, "-" + "9" * 30, "", "one", "0x1p3", "1,5")


def refused(main: Main, argv: Sequence[str], folder: Path, seconds: float = 20.0, stdin: str = "") -> str:
    """The line by which a program refuses a command line: what it says on stderr beside status 2, or what it exits with.

    folder: where it is run, and what is watched; what else it could write to must lie inside. stdin: what it reads.
    Raises AssertionError if the program ends in any other way, or prints more than that line on stderr, builds a network with parameters
    (but on the meta device), adds or changes a file, or takes longer than `seconds`.
    """
    before, out, err = _listing(folder), io.StringIO(), io.StringIO()
    built: list[str] = []
    with _inside(folder), _no_networks(built), _no_longer_than(seconds), _offline(), mock.patch("sys.stdin", io.StringIO(stdin)):
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main(list(argv))
        except SystemExit as end:
            code = end.code
        except (Exception, KeyboardInterrupt) as error:
            raise AssertionError(f"{argv} ended with a traceback: {type(error).__name__}: {error}") from error
        else:
            raise AssertionError(f"{argv} was taken; it said {out.getvalue()!r}")
    lines = err.getvalue().splitlines() + (code.splitlines() if isinstance(code, str) else [])
    assert code == 2 or isinstance(code, str), f"{argv} ended with status {code} and {lines}"
    assert len(lines) == 1, f"{argv} is answered by {len(lines)} lines: {lines}"
    assert "Traceback" not in out.getvalue() and "Traceback" not in lines[0], f"{argv} ended with a traceback"
    assert not built, f"{argv} built a network before it was refused: {built[0]}"
    assert _listing(folder) == before, f"{argv} left {sorted(_listing(folder).items() - before.items())} behind"
    return lines[0]


def hopeless_numbers(parser: argparse.ArgumentParser, values: Sequence[str] = NO_NUMBERS) -> Iterator[tuple[str, str]]:
    """(flag, "flag=value") for every flag of a parser that takes one number, or one or more, with values that are none in any range."""
    for action in parser._actions:
        if action.option_strings and action.type and not isinstance(action.nargs, int) and _numeric(action.type):
            flag = max(action.option_strings, key=len)
            yield from ((flag, f"{flag}={value}") for value in values)


def _numeric(kind: Callable[[str], object]) -> bool:
    for text in ("1", "16", "0.5"):
        try:
            value = kind(text)
        except (ValueError, argparse.ArgumentTypeError):
            continue
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return False


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Files and folders inside, with size and time of the last change of files."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (0, 0) if path.is_dir() else (status.st_size, status.st_mtime_ns)
    return found


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _no_networks(built: list[str]) -> Iterator[None]:
    register = nn.Module.register_parameter

    def guard(self: nn.Module, name: str, param: Tensor | None) -> None:
        if param is not None and not param.is_meta:  # on which headers are compared
            built.append(type(self).__name__)
            raise AssertionError(f"a network is built: {type(self).__name__}")
        register(self, name, param)

    with mock.patch.object(nn.Module, "register_parameter", guard):
        yield


@contextlib.contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    def late(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    started, before = time.perf_counter(), signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 2 * seconds)  # a program that hangs
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    spent = time.perf_counter() - started
    assert spent < seconds, f"refused after {spent:.1f} s"


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Nothing is fetched: a hub that is asked for a file that is not here says so at once."""
    with mock.patch.dict(os.environ, HF_HUB_OFFLINE="1"), contextlib.ExitStack() as stack:
        if "huggingface_hub.constants" in sys.modules:
            stack.enter_context(mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True))
        yield
