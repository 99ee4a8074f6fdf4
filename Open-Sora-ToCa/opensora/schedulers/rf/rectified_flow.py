"""The formulas of rectified flow: noise, times, and the frames that are given or edited."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from opensora.datasets.aspect import latent_frames

BASE_PIXELS = 512**2


def timestep_transform(t: float, num_frames: int, height: int, width: int, num_timesteps: int = 1000) -> float:
    """t' = T r u / (1 + (r - 1) u) with u = t/T and r = sqrt(height width / 512^2) sqrt(latent frames), in double precision.

    Never above T: rounding would make the first step's frames look given.
    """
    ratio = math.sqrt(height * width / BASE_PIXELS) * math.sqrt(latent_frames(num_frames))
    u = t / num_timesteps
    return min(num_timesteps * ratio * u / (1 + (ratio - 1) * u), float(num_timesteps))


def add_noise(x: Tensor, noise: Tensor, level: float) -> Tensor:
    """(1 - level) x + level noise; level: t/1000."""
    return (1 - level) * x + level * noise


def frame_tables(mask: Tensor | None, times: Sequence[float], num_timesteps: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """(active, entering) of a mask (n, T), both (steps, n, T) bool on the CPU: which frames a step generates, and which of them are given
    until then, so that they get noise first. None where there is no mask or it generates everything."""
    if mask is None or bool((mask == 1).all()):
        return None, None
    level = num_timesteps * mask.double().cpu()
    active = level >= torch.tensor(times, dtype=torch.float64)[:, None, None]
    before = torch.cat(((mask.cpu() == 1)[None], active[:-1]))
    return active, active & ~before
