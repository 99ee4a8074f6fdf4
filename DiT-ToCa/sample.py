"""Sample a grid of images from a DiT, with or without caching.

python sample.py --model DiT-mini --ddim-sample --num-sampling-steps 50
python sample.py --preset toca3-ddim50 --class-labels 207 360
python sample.py --image-size 512 --ddim-sample --num-sampling-steps 50 --fresh-threshold 3 --fresh-ratio 0.07
"""

from __future__ import annotations

from collections.abc import Sequence

from dit.flags import parse, sample_parser
from toca.console import interruptible


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(sample_parser(__doc__), argv)
    from dit.runs import sample_grid  # late, because torch takes seconds: a wrong flag is answered at once

    sample_grid(args)


if __name__ == "__main__":
    with interruptible():
        main()
