"""Lines on the terminal: from the process that reports, and whatever letters a console can print. Free of torch; anybody may import it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def main_process() -> bool:
    """Whether this is the process that reports: rank 0 of torchrun, or the only one. Known before the process group is."""
    return os.environ.get("RANK", "0") == "0"


def announce(text: str) -> None:
    """Print a line, from the main process alone. Letters that the console lacks are escaped."""
    if main_process():
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """For the start of a program, whose imports take seconds: Ctrl-C ends it with one line and status 130, as `program_errors` later."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise SystemExit(130) from None
