"""DiT's diffusion, by its published names; the code is `toca.diffusion`, which other forks sample with too."""

from toca.diffusion import SCHEDULES, GaussianDiffusion, create_diffusion

__all__ = ["SCHEDULES", "GaussianDiffusion", "create_diffusion"]
