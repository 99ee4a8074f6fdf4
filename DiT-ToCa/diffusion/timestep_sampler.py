"""Which timesteps a training batch visits, and how its losses are weighted."""

from __future__ import annotations

import torch
from torch import Tensor

from toca.diffusion import GaussianDiffusion


class UniformSampler:
    def __init__(self, diffusion: GaussianDiffusion) -> None:
        self.num_timesteps = diffusion.num_timesteps

    def sample(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(step indices (batch,), loss weights (batch,))"""
        return torch.randint(0, self.num_timesteps, (batch,), device=device), torch.ones(batch, device=device)


class NoisySampler(UniformSampler):
    """sigmoid(N(0.4, 1)) over the schedule: more of the noisy steps, which decide shapes. All weights are 1."""

    def sample(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        share = (torch.randn(batch, device=device) + 0.4).sigmoid()
        return (share * self.num_timesteps).long().clamp_max(self.num_timesteps - 1), torch.ones(batch, device=device)


SAMPLERS = {"uniform": UniformSampler, "noisy": NoisySampler}


def create_named_schedule_sampler(name: str, diffusion: GaussianDiffusion) -> UniformSampler:
    if name not in SAMPLERS:
        raise ValueError(f"unknown timestep sampler {name!r}: choose from {', '.join(SAMPLERS)}")
    return SAMPLERS[name](diffusion)
