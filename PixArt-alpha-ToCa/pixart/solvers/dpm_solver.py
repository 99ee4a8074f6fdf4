"""DPM-Solver++(2M) (Lu et al. 2022): second order, multistep, on predictions of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pixart.solvers.guidance import Callback, Model, guided_noise
from pixart.solvers.schedule import uniform_times

FEW_STEPS = 10  # with fewer, the last update is of first order, which is steadier


class DPMS:
    """The sampler of a text condition. model, condition, uncondition, cfg_scale, model_kwargs: see `pixart.solvers.guidance`."""

    num_steps = 20

    def __init__(
        self, model: Model, condition: Tensor, uncondition: Tensor, cfg_scale: float, model_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self.noise = guided_noise(model, condition, uncondition, cfg_scale, model_kwargs)

    @torch.no_grad()
    def sample(self, x: Tensor, steps: int = num_steps, progress: bool = False, callback: Callback | None = None) -> Tensor:
        """From noise x (B, C, H, W) to latents, float32, with `steps` model calls; ends at t = 0.001, sigma 0.01.

        x_{i+1} = sigma_{i+1} / sigma_i x_i - alpha_{i+1} (e^-h - 1) D, with h = lambda_{i+1} - lambda_i and
        D = x0_i + h / (2 (lambda_i - lambda_{i-1})) (x0_i - x0_{i-1}), at the first step D = x0_0.
        """
        times, x, x0_before = uniform_times(steps), x.float(), None
        alpha, sigma, lam, timesteps = (table.tolist() for table in (times.alpha, times.sigma, times.lam, times.timesteps))
        for i in tqdm(range(steps), disable=not progress, desc="sampling"):
            x0 = (x - sigma[i] * self.noise(x, timesteps[i])) / alpha[i]
            h, d = lam[i + 1] - lam[i], x0
            if x0_before is not None and not (i == steps - 1 and steps < FEW_STEPS):
                d = x0 + h / (2 * (lam[i] - lam[i - 1])) * (x0 - x0_before)
            x, x0_before = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * math.expm1(-h) * d, x0
            if callback:
                callback(i, x)
        return x
