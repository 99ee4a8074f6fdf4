"""`toca.diffusion.gaussian_diffusion` by its published name."""

from toca.diffusion.gaussian_diffusion import (
    GaussianDiffusion,
    discretised_gaussian_log_likelihood,
    linear_betas,
    normal_kl,
    squaredcos_betas,
)

__all__ = ["GaussianDiffusion", "discretised_gaussian_log_likelihood", "linear_betas", "normal_kl", "squaredcos_betas"]
