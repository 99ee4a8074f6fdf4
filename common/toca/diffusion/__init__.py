"""Respaced Gaussian diffusion: DDPM and DDIM sampling, and the training loss of DiT."""

from __future__ import annotations

from toca.diffusion.gaussian_diffusion import GaussianDiffusion, linear_betas, squaredcos_betas
from toca.diffusion.respace import space_timesteps

SCHEDULES = {"linear": linear_betas, "squaredcos_cap_v2": squaredcos_betas}


def create_diffusion(timestep_respacing: str = "", noise_schedule: str = "linear", diffusion_steps: int = 1000) -> GaussianDiffusion:
    """the diffusion of DiT and PixArt on a subset of its timesteps ("250", "10,15", "ddim50"; "" for all, as in training)."""
    if noise_schedule not in SCHEDULES:
        raise ValueError(f"unknown noise schedule {noise_schedule!r}: choose from {', '.join(SCHEDULES)}")
    return GaussianDiffusion(SCHEDULES[noise_schedule](diffusion_steps), space_timesteps(diffusion_steps, timestep_respacing))
