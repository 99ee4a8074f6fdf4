"""Where checkpoints are: the embedded DiT-mini, the official DiT-XL/2 files, or one's own.

    python download.py        # fetch the official files into pretrained_models/
"""

from __future__ import annotations

from pathlib import Path

from toca.weights import find

HERE = Path(__file__).parent
PRETRAINED = HERE / "pretrained_models"
OFFICIAL = {256: "DiT-XL-2-256x256.pt", 512: "DiT-XL-2-512x512.pt"}
SOURCE = "https://dl.fbaipublicfiles.com/DiT/models/"
MINI = HERE / "weights" / "DiT-mini.safetensors"


def checkpoint_path(model: str, image_size: int, ckpt: str | None = None) -> Path:
    """The checkpoint file for a model. Raises FileNotFoundError that says where to get it, where to put it, and what needs none."""
    if ckpt is None and model == "DiT-mini":
        return MINI
    if ckpt is None and (model != "DiT-XL/2" or image_size not in OFFICIAL):
        raise FileNotFoundError(f"there are official weights only for DiT-XL/2 at 256 and 512 pixels; give your own {model} with --ckpt")
    name = ckpt or OFFICIAL[image_size]
    return find(name, folder=PRETRAINED, source=SOURCE + name, instead="`--model DiT-mini` runs without any download")


def download() -> None:
    """Fetch the official files that are not there yet."""
    from torch.hub import download_url_to_file

    PRETRAINED.mkdir(exist_ok=True)
    for name in OFFICIAL.values():
        if not (PRETRAINED / name).exists():
            download_url_to_file(SOURCE + name, str(PRETRAINED / name))


if __name__ == "__main__":
    download()
