"""Distances between two sets of pictures made from the same noise."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from toca.metrics.sources import Pictures


def psnr(images: Pictures, reference: Pictures) -> float:
    """Peak signal-to-noise ratio in dB, the mean over pictures; infinite if one pair is equal."""
    pairs = zip(_tensor(images, reference), _tensor(reference, images), strict=True)
    return torch.stack([peak_signal_noise_ratio(a, b, data_range=255.0) for a, b in pairs]).mean().item()


def ssim(images: Pictures, reference: Pictures) -> float:
    """Structural similarity (Wang et al. 2004), the mean over pictures; 1 for equal ones."""
    return structural_similarity_index_measure(_tensor(images, reference), _tensor(reference, images), data_range=255.0).item()


def _tensor(images: Pictures, other: Pictures) -> Tensor:
    if images.shape != other.shape or images.ndim != 4:
        raise ValueError(f"pictures must come as two arrays of one shape (B, H, W, 3), got {images.shape} and {other.shape}")
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()
