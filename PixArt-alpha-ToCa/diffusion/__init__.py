"""PixArt's three samplers, by their published names. They know nothing of caching: a cache is one of the model's keyword arguments."""

from diffusion.dpm_solver import DPMS
from diffusion.iddpm import IDDPM
from diffusion.sa_sampler import SASolverSampler

__all__ = ["DPMS", "IDDPM", "SASolverSampler"]
