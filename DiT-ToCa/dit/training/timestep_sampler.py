"""Which timesteps a training batch visits, and how its losses are weighted."""

from __future__ import annotations

import torch
from torch import Tensor

from dit.training.flags import TIMESTEP_SAMPLERS
from toca.diffusion import GaussianDiffusion


class UniformSampler:
    def __init__(self, diffusion: GaussianDiffusion) -> None:
        self.num_timesteps = diffusion.num_timesteps

    def sample(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(step indices (batch,), loss weights (batch,))"""
        return torch.randint(0, self.num_timesteps, (batch,), device=device), torch.ones(batch, device=device)


class LogitNormalSampler(UniformSampler):
    """sigmoid(N(mean, std^2)) over the schedule (Esser et al. 2024): more of the steps where a model errs. All weights are 1."""

    def __init__(self, diffusion: GaussianDiffusion, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__(diffusion)
        self.mean, self.std = mean, std

    def sample(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        share = (torch.randn(batch, device=device) * self.std + self.mean).sigmoid()
        return (share * self.num_timesteps).long().clamp_max(self.num_timesteps - 1), torch.ones(batch, device=device)


SAMPLERS = dict(zip(TIMESTEP_SAMPLERS, (UniformSampler, LogitNormalSampler), strict=True))


def create_named_schedule_sampler(name: str, diffusion: GaussianDiffusion, **options: float) -> UniformSampler:
    """The sampler of that name; options: `mean` and `std` of logit-normal. Raises ValueError for an unknown name."""
    if name not in SAMPLERS:
        raise ValueError(f"unknown timestep sampler {name!r}: choose from {', '.join(SAMPLERS)}")
    return SAMPLERS[name](diffusion, **options)
