"""Fetch the official DiT-XL/2 files, and the VAEs that decode their latents, into pretrained_models/.

python download.py                 # both sizes
python download.py --vae ema mse   # and the VAEs
"""

from __future__ import annotations

from collections.abc import Sequence

from dit.flags import download_parser
from toca.console import interruptible


def main(argv: Sequence[str] | None = None) -> None:
    args = download_parser(__doc__).parse_args(argv)
    from dit.weights import download  # late, because torch takes seconds: a wrong flag is answered at once

    download(args)


if __name__ == "__main__":
    with interruptible():
        main()
