"""ImageReward (arXiv 2304.05977) and HPSv2 (arXiv 2306.09341): what people would like, through the authors' packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

Reward = Callable[[Path, str], float]  # a picture and its prompt
PACKAGES = {"image-reward": ("ImageReward", "image-reward"), "hpsv2": ("hpsv2", "hpsv2")}  # module, package
IMAGE_REWARD, HPS_VERSION = "ImageReward-v1.0", "v2.1"


def reward(kind: str, device: torch.device) -> Reward:
    """A rating of `PACKAGES`: ImageReward-v1.0, or HPS v2.1. Raises ValueError if the package or its weights are missing."""
    module, package = PACKAGES[kind]
    try:
        found = __import__(module)
    except ImportError as error:
        raise ValueError(f"{kind} needs its package: pip install {package}") from error
    if kind == "hpsv2":
        return lambda picture, prompt: float(found.score(str(picture), prompt, hps_version=HPS_VERSION)[0])
    try:
        model = found.load(IMAGE_REWARD, device=device)
    except OSError as error:
        raise ValueError(f"{kind}: {IMAGE_REWARD} is neither on this machine nor could it be fetched ({error})") from error
    return lambda picture, prompt: float(model.score(prompt, str(picture)))


def rate(rating: Reward, pictures: Sequence[Path], prompts: Sequence[str]) -> list[float]:
    """The rating of every picture by its own prompt. Raises ValueError if they are not as many."""
    if len(pictures) != len(prompts):
        raise ValueError(f"one prompt a picture is wanted, got {len(pictures)} pictures and {len(prompts)} prompts")
    return [rating(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
