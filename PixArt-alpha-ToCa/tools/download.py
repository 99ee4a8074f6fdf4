"""Fetch the published files into pretrained_models/, where the programs look first.

python tools/download.py                  # PixArt at 256, 512 and 1024 pixels
python tools/download.py --models 256 --vae --t5
"""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import hf_hub_download, snapshot_download

from pixart.flags import PRETRAINED
from pixart.t5 import HUB
from pixart.weights import OFFICIAL, OTHERS, REPO, VAE
from toca.cli.flags import Parser
from toca.console import announce
from toca.loading.autoencoder import PUBLISHED
from toca.runs.outputs import check_folder
from toca.runs.programs import program_errors

T5_FILES = ["*.json", "spiece.model", "pytorch_model*.bin", "model*.safetensors"]
MODEL_BYTES, VAE_BYTES, T5_BYTES = 2_500_000_000, 340_000_000, 19_100_000_000
AGAIN = "the same command goes on where this one stopped"


@program_errors(after=AGAIN)
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    names = list(dict.fromkeys([*(OFFICIAL[size] for size in args.models or ()), *(args.model_names or ())]))
    if args.models is None and not args.model_names:
        names = list(OFFICIAL.values())
    if not names and not args.vae and not args.t5:
        raise ValueError("nothing to fetch: name --models, or ask for --vae or --t5")
    missing = [name for name in names if not (PRETRAINED / name).is_file()]
    vae, t5 = args.vae and not (PRETRAINED / VAE).is_dir(), args.t5 and not (PRETRAINED / "t5-v1_1-xxl").is_dir()
    check_folder(PRETRAINED, "pretrained_models", MODEL_BYTES * len(missing) + VAE_BYTES * vae + T5_BYTES * t5)
    for name in names:
        announce(str(hf_hub_download(REPO, name, local_dir=PRETRAINED)))
    if args.vae:
        announce(snapshot_download(PUBLISHED["ema"], local_dir=PRETRAINED / VAE, allow_patterns=["config.json", "*.safetensors"]))
    if args.t5:
        announce(snapshot_download(HUB, local_dir=PRETRAINED / "t5-v1_1-xxl", allow_patterns=T5_FILES))


def parser() -> Parser:
    p = Parser(description=__doc__)
    p.add_argument("--models", type=int, nargs="*", choices=OFFICIAL, help="pixels (default: all)")
    p.add_argument("--model_names", nargs="+", choices=[*OFFICIAL.values(), *OTHERS], help="upstream's: published files, by their names")
    p.add_argument("--vae", action="store_true", help="also the autoencoder, 0.3 GB")
    p.add_argument("--t5", action="store_true", help="also the text encoder, 19 GB")
    return p


if __name__ == "__main__":
    main()
