"""Fetch the published files into pretrained_models/, where the programs look first.

python tools/download.py                  # PixArt at 256, 512 and 1024 pixels
python tools/download.py --models 256 --vae --t5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pixart.pipeline import VAE
from pixart.t5 import HUB
from pixart.weights import OFFICIAL, PRETRAINED, REPO
from toca.loading.autoencoder import PUBLISHED
from toca.runs.programs import program_errors

T5_FILES = ["*.json", "spiece.model", "pytorch_model*.bin", "model*.safetensors"]


@program_errors()
def main(args: argparse.Namespace) -> None:
    for size in args.models:
        print(hf_hub_download(REPO, OFFICIAL[size], local_dir=PRETRAINED))
    if args.vae:
        print(snapshot_download(PUBLISHED["ema"], local_dir=PRETRAINED / VAE, allow_patterns=["config.json", "*.safetensors"]))
    if args.t5:
        print(snapshot_download(HUB, local_dir=PRETRAINED / "t5-v1_1-xxl", allow_patterns=T5_FILES))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", type=int, nargs="*", choices=OFFICIAL, default=list(OFFICIAL), help="pixels (default: all)")
    p.add_argument("--vae", action="store_true", help="also the autoencoder, 0.3 GB")
    p.add_argument("--t5", action="store_true", help="also the text encoder, 19 GB")
    return p


if __name__ == "__main__":
    main(parser().parse_args())
