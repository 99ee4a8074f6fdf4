"""Fetch the published files into pretrained_models/, where the programs look first.

python tools/download.py                  # PixArt at 256, 512 and 1024 pixels
python tools/download.py --models 256 --vae --t5
"""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import hf_hub_download, snapshot_download

from pixart.flags import PRETRAINED
from pixart.t5 import HUB
from pixart.weights import OFFICIAL, REPO, VAE
from toca.cli.flags import Parser
from toca.console import announce
from toca.loading.autoencoder import PUBLISHED
from toca.runs.programs import program_errors

T5_FILES = ["*.json", "spiece.model", "pytorch_model*.bin", "model*.safetensors"]


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    for size in args.models:
        announce(str(hf_hub_download(REPO, OFFICIAL[size], local_dir=PRETRAINED)))
    if args.vae:
        announce(snapshot_download(PUBLISHED["ema"], local_dir=PRETRAINED / VAE, allow_patterns=["config.json", "*.safetensors"]))
    if args.t5:
        announce(snapshot_download(HUB, local_dir=PRETRAINED / "t5-v1_1-xxl", allow_patterns=T5_FILES))


def parser() -> Parser:
    p = Parser(description=__doc__)
    p.add_argument("--models", type=int, nargs="*", choices=OFFICIAL, default=list(OFFICIAL), help="pixels (default: all)")
    p.add_argument("--vae", action="store_true", help="also the autoencoder, 0.3 GB")
    p.add_argument("--t5", action="store_true", help="also the text encoder, 19 GB")
    return p


if __name__ == "__main__":
    main()
