"""LPIPS (arXiv 1801.03924) and DISTS (arXiv 2004.07728) of pairs of pictures, through the authors' packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from toca.metrics.sources import Pictures

Metric = Callable[[Pictures, Pictures], Tensor]  # (B, H, W, 3) twice -> (B,)
KINDS = {"lpips": ("lpips", "lpips"), "dists": ("DISTS_pytorch", "DISTS-pytorch")}  # module, package
BACKBONES = {"lpips": "alexnet-owt-7be5be79.pth", "dists": "vgg16-397923af.pth"}  # of torchvision, which the packages fetch


def perceptual(kind: str, device: torch.device) -> Metric:
    """A metric of `KINDS`; 0 for equal pictures. LPIPS is that of AlexNet, version 0.1.

    Raises ValueError if the package, or the backbone's weights in torch's hub folder, are missing.
    """
    module, package = KINDS[kind]
    try:
        found = __import__(module)
    except ImportError as error:
        raise ValueError(f"{kind} needs its package: pip install {package}") from error
    try:
        network: Any = found.LPIPS(net="alex", verbose=False) if kind == "lpips" else found.DISTS()
    except OSError as error:  # no network, or no such file
        where = f"{torch.hub.get_dir()}/checkpoints"
        raise ValueError(f"{kind} needs {BACKBONES[kind]} of download.pytorch.org/models in {where} ({error})") from error
    network = network.to(device).eval().requires_grad_(False)
    low, high = (-1.0, 1.0) if kind == "lpips" else (0.0, 1.0)

    @torch.no_grad()
    def metric(images: Pictures, reference: Pictures) -> Tensor:
        x, y = (low + (high - low) / 255 * torch.from_numpy(some).to(device).permute(0, 3, 1, 2) for some in (images, reference))
        return network(x, y).flatten()

    return metric
