"""Ancestral sampling with learned variance (Nichol & Dhariwal 2021), on a subset of the trained timesteps."""

from __future__ import annotations

from toca.diffusion import GaussianDiffusion, create_diffusion

NUM_STEPS = 100


def IDDPM(timestep_respacing: str = str(NUM_STEPS)) -> GaussianDiffusion:
    """The diffusion; sample with `p_sample_loop(model.forward_with_cfg, ...)`, rows [conditional B; unconditional B]."""
    return create_diffusion(timestep_respacing)
