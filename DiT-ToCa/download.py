"""Where checkpoints are: the embedded DiT-mini, the official DiT-XL/2 files, or one's own.

python download.py                 # fetch the official files into pretrained_models/
python download.py --vae ema mse   # and the VAEs that decode their latents
"""

from __future__ import annotations

import argparse
from pathlib import Path

from toca.loading.weights import find

HERE = Path(__file__).parent
PRETRAINED = HERE / "pretrained_models"
OFFICIAL = {256: "DiT-XL-2-256x256.pt", 512: "DiT-XL-2-512x512.pt"}
SOURCE = "https://dl.fbaipublicfiles.com/DiT/models/"
MINI = HERE / "weights" / "DiT-mini.safetensors"


def checkpoint_path(model: str, image_size: int, ckpt: str | None = None) -> Path:
    """The checkpoint file for a model. Raises FileNotFoundError that says where to get it, where to put it, and what needs none."""
    instead = "`--model DiT-mini` runs without any download"
    if ckpt is not None:
        source = SOURCE + ckpt if ckpt in OFFICIAL.values() else "wherever it was trained (train.py writes its own under results/)"
        return find(ckpt, PRETRAINED, source, instead)
    if model == "DiT-mini":
        return find(MINI.name, MINI.parent, "this repository, which carries it", "train.py makes another one")
    if model != "DiT-XL/2" or image_size not in OFFICIAL:
        raise FileNotFoundError(
            f"no official weights for {model} at {image_size} pixels (only DiT-XL/2 at 256 and 512): give your own with --ckpt; {instead}"
        )
    name = OFFICIAL[image_size]
    return find(name, PRETRAINED, f"{SOURCE}{name} (`python download.py` does)", instead)


def download(sizes: list[int], vaes: list[str]) -> None:
    """Fetch the official files that are not there yet. An interrupted download leaves no file of the final name."""
    from torch.hub import download_url_to_file

    PRETRAINED.mkdir(exist_ok=True)
    for size in sizes:
        if not (path := PRETRAINED / OFFICIAL[size]).exists():
            download_url_to_file(SOURCE + path.name, str(path))
        print(path)
    for name in vaes:
        from dit.weights import save_published

        print(save_published(name))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--image-size", type=int, nargs="+", choices=OFFICIAL, default=list(OFFICIAL), help="which DiT-XL/2 (default both)")
    p.add_argument("--vae", nargs="+", choices=("ema", "mse"), default=[], help="also fetch these VAEs")
    return p


def main(args: argparse.Namespace) -> None:
    from toca.runs.programs import program_errors

    with program_errors():
        download(args.image_size, args.vae)


if __name__ == "__main__":
    main(parser().parse_args())
