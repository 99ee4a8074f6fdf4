"""One video of one prompt, to a file.

    python sample.py --prompt "a beautiful waterfall" --resolution 480p --output waterfall.mp4
    python sample.py --prompt "a beautiful waterfall" --num-frames 1 --output waterfall.png

For many prompts, samples and long videos there is scripts/inference.py, whose flags these are; the configuration may be named first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from opensora.flags import parse
from opensora.runs import main
from toca.runs.programs import program_errors

CONFIG = str(Path(__file__).resolve().parent / "configs/opensora-v1-2/inference/sample.py")


def with_config(argv: Sequence[str]) -> list[str]:
    """The flags behind a configuration, sample.py's own if they name none."""
    return list(argv) if argv and not argv[0].startswith("-") else [CONFIG, *argv]


if __name__ == "__main__":
    with program_errors("try a smaller --resolution or --num-frames, or --dtype bf16"):
        main(*parse(with_config(sys.argv[1:]), output="sample.mp4"))
