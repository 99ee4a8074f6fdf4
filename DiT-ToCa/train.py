"""Train a DiT (uncached; caching is for sampling): AdamW or Muon, EMA, resumable, on one device or under torchrun.

torchrun --nproc_per_node=8 train.py --data-path /path/to/imagenet/train --model DiT-XL/2
python train.py --data-path shapeworld --model DiT-mini --max-steps 20000 --global-batch-size 64
python train.py --resume results/000-DiT-mini/checkpoints/0010000.pt ...    # with the flags of the run to go on with
"""

from __future__ import annotations

from collections.abc import Sequence

from dit.training.flags import train_parser
from toca.console import interruptible


def main(argv: Sequence[str] | None = None) -> None:
    args = train_parser(__doc__).parse_args(argv)
    from dit.training.train import train  # late, because torch takes seconds: a wrong flag is answered at once

    train(args)


if __name__ == "__main__":
    with interruptible():
        main()
