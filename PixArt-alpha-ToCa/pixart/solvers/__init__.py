"""PixArt's three samplers, by their published names. They know nothing of caching: a cache is one of the model's keyword arguments."""

from pixart.solvers.dpm_solver import DPMS
from pixart.solvers.iddpm import IDDPM
from pixart.solvers.sa_solver import SASolverSampler

__all__ = ["DPMS", "IDDPM", "SASolverSampler"]
