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
from toca.console import interruptible

CONFIG = str(Path(__file__).resolve().parent / "configs/opensora-v1-2/inference/sample.py")


def with_config(argv: Sequence[str]) -> list[str]:
    """The flags behind a configuration, sample.py's own if they name none."""
    return list(argv) if argv and not argv[0].startswith("-") else [CONFIG, *argv]


def main(argv: Sequence[str] | None = None) -> None:
    args, parts = parse(with_config(sys.argv[1:] if argv is None else argv), output="sample.mp4")
    from opensora.runs import main as run  # late, because torch takes seconds: a wrong flag is answered at once

    run(args, parts)


if __name__ == "__main__":
    with interruptible():
        main()
