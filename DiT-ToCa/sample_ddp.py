"""Sample many images for FID: sharded over processes, resumable, one PNG per image and one npz for ADM's evaluator.

    torchrun --nproc_per_node=8 sample_ddp.py --preset toca3-ddim50
    torchrun --nproc_per_node=2 sample_ddp.py --device cpu --model DiT-mini --ddim-sample --num-sampling-steps 50 --num-fid-samples 1000

The same command again goes on where a killed run stopped, and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from dit.flags import parse, sample_ddp_parser
from toca.console import interruptible


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(sample_ddp_parser(__doc__), argv)
    from dit.runs import sample_many  # late, because torch takes seconds: a wrong flag is answered at once

    sample_many(args)


if __name__ == "__main__":
    with interruptible():
        main()
