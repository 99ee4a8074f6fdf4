"""Videos of prompts.

    python scripts/inference.py configs/opensora-v1-2/inference/sample.py \\
        --num-frames 2s --resolution 480p --aspect-ratio 9:16 --prompt "a beautiful waterfall"

Under torchrun every process takes its share of the videos; the same command again goes on where an interrupted one stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from opensora.flags import parse
from toca.console import interruptible


def main(argv: Sequence[str] | None = None) -> None:
    args, parts = parse(argv)
    from opensora.runs import main as run  # late, because torch takes seconds: a wrong flag is answered at once

    run(args, parts)


if __name__ == "__main__":
    with interruptible():
        main()
