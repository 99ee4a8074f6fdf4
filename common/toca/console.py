"""Lines on the terminal: from the process that reports, and whatever letters a console can print. Free of torch; anybody may import it."""

from __future__ import annotations

import os
import sys


def main_process() -> bool:
    """Whether this is the process that reports: rank 0 of torchrun, or the only one. Known before the process group is."""
    return os.environ.get("RANK", "0") == "0"


def announce(text: str) -> None:
    """Print a line, from the main process alone. Letters that the console lacks are escaped."""
    if main_process():
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
